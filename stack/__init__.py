"""The embedded stack: a broker and a store from pip wheels, and the processes that run on them."""
