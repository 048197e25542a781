"""Fresh processes: what a worker does, how it ends, and the sweep that starts one after another."""
