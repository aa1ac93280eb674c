"""Executors: who takes the orders."""

from bot.execution.mock import MockExecutor
from bot.fills import Terms
from bot.ports import Executor, OrderRefused

__all__ = ["Executor", "MockExecutor", "OrderRefused", "Terms"]
