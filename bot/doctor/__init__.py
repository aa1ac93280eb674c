"""What could keep the daemon from running well: this machine, the ledger, the exchange. It changes nothing."""

from __future__ import annotations

from bot.clock import SystemClock
from bot.doctor.check import Check, State
from bot.doctor.exchange import of_exchange
from bot.doctor.machine import of_disk, of_folder, of_ledger, of_python, of_rights, of_sqlite
from bot.domain import few
from bot.settings import Settings

__all__ = ["Check", "State", "examined"]


async def examined(settings: Settings) -> list[Check]:
    """All checks for settings that are sound, one after the other: what fails in one hides no other."""
    clock = SystemClock()
    names = ", ".join(entry.name for entry in settings.strategy)
    told = f"{settings.feed.kind} prices of {few(settings.feed.symbols)} for {names}"
    checks = [Check("configuration", State.OK, told), *of_python(), *of_sqlite()]
    checks += [*of_folder(settings), *of_rights(settings), *of_disk(settings)]
    checks += await of_ledger(settings, clock)
    if settings.feed.kind == "ccxt":
        checks += await of_exchange(settings, clock)
    return checks
