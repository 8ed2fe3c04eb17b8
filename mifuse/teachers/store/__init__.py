"""The draws store: answers, prices and open requests in one SQLite file."""
