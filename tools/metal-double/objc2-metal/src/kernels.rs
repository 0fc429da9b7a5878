//! What runs a dispatch: the emulator for Tallow's kernels, Rust for Candle's.
use crate::candle;
use crate::double::{self, CHECKED, DISPATCHES, broken};
use crate::hazards::Access;
use crate::memory::Memory;
use crate::pipelines::{Constant, Pipeline};
use msl_emu::{Arguments, Emulator};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is bound to an index.
#[derive(Clone)]
pub enum Argument {
    Bytes(Vec<u8>),
    /// A buffer's memory from an offset on.
    Memory(Arc<Memory>, usize),
}

impl Argument {
    /// The bytes as they are now.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Argument::Bytes(bytes) => bytes,
            Argument::Memory(memory, offset) => memory.bytes(*offset),
        }
    }
}

/// A kernel by what runs it.
pub enum Kernel {
    Emulated(Arguments),
    Candle(candle::Kernel),
}

/// The emulator that kernels run in.
fn emulator() -> &'static Emulator {
    let emulator = if std::env::var_os(CHECKED).is_some() { Emulator::checked() } else { Emulator::fast() };
    emulator.unwrap_or_else(|| broken("the emulator", "it was built without clang++-19"))
}

/// The index of a function constant of one of our kernels, by its name.
pub fn constant(kernel: &str, name: &str) -> Option<usize> {
    emulator().constant(kernel, name).map(|index| index as usize)
}

impl Kernel {
    /// The kernel of a name. A name that nothing stands in for ends the thread.
    pub fn find(name: &str) -> Self {
        let emulated = emulator().arguments(name).map(Kernel::Emulated);
        let found = emulated.or_else(|| candle::find(name).map(Kernel::Candle));
        found.unwrap_or_else(|| broken(name, "nothing stands in for this kernel"))
    }

    /// What the kernel is launched with.
    pub fn arguments(&self) -> Arguments {
        match self {
            Kernel::Emulated(arguments) => *arguments,
            Kernel::Candle(kernel) => kernel.arguments,
        }
    }
}

/// Says which kernel ran when something panics, as an index that is out of range does.
struct Named<'a>(&'a str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("metal-double: {} was running", self.0);
        }
    }
}

/// A dispatch that was recorded.
pub struct Dispatch {
    pipeline: Arc<Pipeline>,
    /// The kernel's arguments, by their index.
    arguments: BTreeMap<usize, Argument>,
    /// Threadgroups, their threads, and all threads.
    sizes: [[usize; 3]; 3],
}

impl Dispatch {
    /// Takes what of `bound` the kernel has as arguments.
    pub fn new(pipeline: Arc<Pipeline>, bound: &BTreeMap<usize, Argument>, sizes: [[usize; 3]; 3]) -> Self {
        let all = pipeline.kernel.arguments().all;
        let wanted = (0..32).filter(|index| all >> index & 1 != 0);
        let take = |index| match bound.get(&index) {
            Some(argument) => (index, argument.clone()),
            None => broken(&pipeline.name, format_args!("buffer {index} is not bound")),
        };
        let arguments = wanted.map(take).collect();
        Dispatch { pipeline, arguments, sizes }
    }

    fn writes(&self, index: usize) -> bool {
        self.pipeline.kernel.arguments().written >> index & 1 != 0
    }

    /// What the dispatch may touch: of each buffer all from the offset on.
    pub fn accesses(&self) -> Vec<Access> {
        let access = |(index, argument): (&usize, &Argument)| match argument {
            Argument::Memory(memory, offset) => {
                Some(Access::new(memory, *offset..memory.length(), self.writes(*index)))
            }
            Argument::Bytes(_) => None,
        };
        self.arguments.iter().filter_map(access).collect()
    }

    /// Runs the dispatch.
    pub fn run(self) {
        let _named = Named(&self.pipeline.name);
        DISPATCHES.fetch_add(1, Ordering::Relaxed);
        // The kernel gets copies of what it writes, so that it may read that through another argument too.
        let written = self.arguments.iter().filter(|(index, _)| self.writes(**index));
        let mut outputs: BTreeMap<_, _> = written.map(|(i, argument)| (*i, argument.bytes().to_vec())).collect();
        match &self.pipeline.kernel {
            Kernel::Emulated(_) => self.emulate(&mut outputs),
            Kernel::Candle(kernel) => {
                double::candle_ran(&self.pipeline.name);
                let call = candle::Call { name: &self.pipeline.name, arguments: &self.arguments, sizes: self.sizes };
                outputs.values_mut().for_each(|output| (kernel.run)(&call, output));
            }
        }
        for (index, bytes) in outputs {
            match &self.arguments[&index] {
                Argument::Memory(memory, offset) => memory.write(*offset, &bytes),
                Argument::Bytes(_) => broken(&self.pipeline.name, format_args!("setBytes of {index}, which it writes")),
            }
        }
    }

    fn emulate(&self, outputs: &mut BTreeMap<usize, Vec<u8>>) {
        let name = &*self.pipeline.name;
        let [groups, threads, grid] = self.sizes;
        if threads[1..] != [1, 1] || (0..3).any(|i| groups[i] * threads[i] != grid[i]) {
            broken(name, "the emulator runs whole threadgroups of one dimension");
        }
        let mut launch = emulator().kernel(name).grid(groups[0], groups[1], groups[2]).threads(threads[0]);
        for (index, constant) in &self.pipeline.constants {
            launch = match constant {
                Constant::Bool(value) => launch.constant_bool(*index as u32, *value),
                Constant::Uint(value) => launch.constant_uint(*index as u32, *value),
                Constant::Other => broken(name, format_args!("function constant {index} is neither bool nor uint")),
            };
        }
        for (index, argument) in self.arguments.iter().filter(|(index, _)| !self.writes(**index)) {
            launch = launch.buffer(*index as u32, argument.bytes());
        }
        for (index, bytes) in outputs {
            launch = launch.output(*index as u32, bytes);
        }
        if let Err(fault) = launch.order(2 + double::random() as u32 % 1000).run() {
            broken(name, fault);
        }
    }
}
