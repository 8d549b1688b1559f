//! ABCI 2.0: the application trait, in-process clients, the built-in applications.
