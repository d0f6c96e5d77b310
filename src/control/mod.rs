//! Control: the API server, its client the command line, apply and explain.
