"""One thread for linear algebra on small matrices.

Training and drawing factorise small matrices by the thousand. BLAS's own threads gain nothing on
them, and where another process has one of the cores they wait for each other at every call: a round
of training was seen to take ten times as long.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits

one_blas_thread = threadpool_limits.wrap(limits=1, user_api="blas")
"""A decorator: while the function runs, BLAS and LAPACK have one thread in this process."""
