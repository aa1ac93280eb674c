"""A search from its first part to its last, or as far as it came."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from bot.backtest.optimize import workers
from bot.backtest.optimize.found import Found
from bot.backtest.optimize.study import Study

INTERRUPTED = "interrupted"


def search(
    study: Study,
    by: str,
    *,
    min_trades: int = 0,
    jobs: int = 1,
    start_method: workers.StartMethod = workers.START_METHOD,
    progress: Callable[[str, float], None] = lambda what, part: None,
) -> Found:
    """The same whatever the number of ``jobs``. An interrupt or a worker that dies ends it, and is told in
    ``Found.ended``; ``progress`` hears what is going on, and which part of all is done."""
    found = Found(study, by, min_trades)
    parts = study.parts(jobs)
    total, done = len(study.combinations) * len(study.windows), 0
    try:
        with closing(workers.work(study, parts, jobs, start_method)) as results:
            for worked in results:
                found.add(worked)
                done += worked.part.stop - worked.part.first
                progress(f"{done:,} of {total:,} tried", done / total)
    except KeyboardInterrupt:
        found.ended = INTERRUPTED
    except workers.WorkerDied as error:
        found.ended = str(error)
    return found
