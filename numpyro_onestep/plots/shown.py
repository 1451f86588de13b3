"""Figures outside of pyplot that a notebook shows, whether or not it has imported pyplot."""

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure that is its own picture as the last line of a cell.

    IPython draws plain figures only once pyplot has been imported.
    """

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", bbox_inches="tight")
        return picture.getvalue()
