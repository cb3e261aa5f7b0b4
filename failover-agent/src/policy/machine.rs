//! The machine.
/// The machine.
#[derive(Debug)]
pub struct Machine;
