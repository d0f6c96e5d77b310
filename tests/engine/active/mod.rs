//! Two nodes that both forward: whatever way packets take, one of them judges each, and it leaves where it came in.

mod defer;
mod flows;
mod model;
mod split;
