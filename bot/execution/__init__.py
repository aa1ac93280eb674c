"""Executors: who takes the orders."""

from bot.execution.mock import MockExecutor, Terms
from bot.ports import Executor, OrderRefused

__all__ = ["Executor", "MockExecutor", "OrderRefused", "Terms"]
