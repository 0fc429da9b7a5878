//! The helpers against f64, in the emulator, in several orders of lanes.
mod common;
use common::executor;
use msl_emu::Emulator;

#[test]
fn helpers_agree_with_f64() {
    let Some(emulator) = Emulator::checked() else { return };
    for (name, result) in common::helpers::all(|order| executor(emulator, order)) {
        assert_eq!(result, Ok(()), "{name}");
    }
}
