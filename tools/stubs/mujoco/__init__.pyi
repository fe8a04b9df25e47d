from typing import Any

def __getattr__(name: str) -> Any: ...  # compiled, and without types of its own
