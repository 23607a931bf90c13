//! Judges of what a run left behind. Each is pure and knows nothing of the simulator, so that a test
//! against real processes can use it as well.

pub mod kv;
pub mod linear;
pub mod nodes;
pub mod turns;
pub mod watch;
