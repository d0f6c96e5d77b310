//! The configuration file: text to validated value to compiled policy.
