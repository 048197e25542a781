"""Fresh processes: how one starts, what it does, and how it ends."""
