"""All truth about jobs and nodes. `Store` runs functions of the modules beside it in transactions."""

from .connection import Access, Row, TakenError, UnavailableError
from .database import Store
from .transaction import Transaction

__all__ = ["Access", "Row", "Store", "TakenError", "Transaction", "UnavailableError"]
