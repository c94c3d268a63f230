"""All truth about jobs and nodes. `Store` runs functions of the modules beside it in transactions."""

from .database import Row, Store, Transaction

__all__ = ["Row", "Store", "Transaction"]
