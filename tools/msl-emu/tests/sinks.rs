//! First tokens that a window keeps, and learnt logits that take weight, in the emulator.
mod common;
use metal::Form;
use msl_emu::Emulator;

#[test]
fn first_tokens_and_learnt_logits_take_weight() {
    let Some(emulator) = Emulator::fast() else { return };
    for form in [Form::Mma, Form::Vec] {
        assert_eq!(common::sinks::check(&common::executor(emulator, 0), form), Ok(()), "{form:?}");
    }
}
