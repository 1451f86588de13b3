"""Colours that mean the same in every picture."""

VERDICT_COLOURS = {
    "reliable": "#1b7837",
    "usable_with_weights": "#b35806",
    "rescued": "#2166ac",
    "unreliable": "#b2182b",
}
FILL, MARK, ALARM = "#9ecae1", "#08306b", VERDICT_COLOURS["unreliable"]


def verdict_colour(verdict: object) -> str:
    """Colour of a verdict, black for anything else."""
    return VERDICT_COLOURS.get(str(verdict), "black")
