//! Libraries, functions and pipelines: a kernel is known by its name.
use crate::kernels::{self, Kernel};
use crate::types::{MTLDataType, MTLLanguageVersion, MTLMathFloatingPointFunctions, MTLMathMode};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSError, NSString};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Options of the compiler, which does not run here.
#[derive(Debug)]
pub struct MTLCompileOptions(());

#[allow(missing_docs)] // Apple's names
impl MTLCompileOptions {
    #[allow(clippy::new_ret_no_self)] // the real crate's name
    pub fn new() -> Retained<Self> {
        Retained::of(MTLCompileOptions(()))
    }
    pub fn setLanguageVersion(&self, _: MTLLanguageVersion) {}
    pub fn setMathMode(&self, _: MTLMathMode) {}
    pub fn setMathFloatingPointFunctions(&self, _: MTLMathFloatingPointFunctions) {}
    pub fn setFastMathEnabled(&self, _: bool) {}
}

/// The value of a function constant.
#[derive(Debug, Clone, Copy)]
pub enum Constant {
    Bool(bool),
    Uint(u32),
    /// A value that none of our kernels has.
    Other,
}

/// Values of function constants, by their index.
#[derive(Debug, Default)]
pub struct MTLFunctionConstantValues(Mutex<Vec<(usize, Constant)>>);

impl MTLFunctionConstantValues {
    /// No values.
    #[allow(clippy::new_ret_no_self)] // the real crate's name
    pub fn new() -> Retained<Self> {
        Retained::of(Self::default())
    }

    /// Sets a value.
    ///
    /// # Safety
    /// `value` must be to a value of the type.
    pub unsafe fn setConstantValue_type_atIndex(&self, value: NonNull<c_void>, kind: MTLDataType, index: usize) {
        let constant = match kind {
            // SAFETY: it is to a value of this type, as the caller promises.
            MTLDataType::Bool => Constant::Bool(unsafe { value.cast::<bool>().read() }),
            // SAFETY: as above.
            MTLDataType::UInt => Constant::Uint(unsafe { value.cast::<u32>().read() }),
            MTLDataType::ULong | MTLDataType::UShort | MTLDataType::Float => Constant::Other,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((index, constant));
    }
}

/// Compiled source.
#[allow(missing_docs)] // Apple's names
pub trait MTLLibrary {
    fn newFunctionWithName(&self, name: &NSString) -> Option<Retained<ProtocolObject<dyn MTLFunction>>>;
    fn newFunctionWithName_constantValues_error(
        &self,
        name: &NSString,
        values: &MTLFunctionConstantValues,
    ) -> Result<Retained<ProtocolObject<dyn MTLFunction>>, Retained<NSError>>;
}

/// A kernel of a library, with its constants.
pub trait MTLFunction {}

/// A kernel that can be dispatched.
#[allow(missing_docs)] // Apple's names
pub trait MTLComputePipelineState {
    fn maxTotalThreadsPerThreadgroup(&self) -> usize;
    fn staticThreadgroupMemoryLength(&self) -> usize;
}

/// What a function and a pipeline are made of.
pub struct Pipeline {
    pub name: String,
    pub kernel: Kernel,
    pub constants: Vec<(usize, Constant)>,
}

impl Pipeline {
    /// The most threads of a threadgroup, by the kernel's text.
    pub fn most_threads(&self) -> usize {
        self.kernel.arguments().most_threads as usize
    }
}

/// The constants that a library's text has values for, by their names, beside those that are no function constants in
/// the text that the emulator has.
type TextConstants = Vec<(String, Constant)>;

pub fn library(source: &str) -> Retained<ProtocolObject<dyn MTLLibrary>> {
    let constants: TextConstants = source.lines().filter_map(text_constant).collect();
    Retained::of(ProtocolObject::of(constants))
}

/// The name and value in a line such as `constant constexpr uint kKeyFormat = 4u;`.
fn text_constant(line: &str) -> Option<(String, Constant)> {
    let (declaration, value) = line.strip_prefix("constant constexpr ")?.split_once(';')?.0.split_once(" = ")?;
    let (kind, name) = declaration.split_once(' ')?;
    let constant = match kind {
        "bool" => Constant::Bool(value.parse().ok()?),
        "uint" => Constant::Uint(value.trim_end_matches('u').parse().ok()?),
        _ => return None,
    };
    Some((name.to_owned(), constant))
}

pub fn compute_pipeline(
    function: &ProtocolObject<dyn MTLFunction>,
) -> Retained<ProtocolObject<dyn MTLComputePipelineState>> {
    Retained::of(ProtocolObject::of(Arc::clone(function.get::<Arc<Pipeline>>())))
}

fn function(
    library: &ProtocolObject<dyn MTLLibrary>,
    name: &str,
    mut constants: Vec<(usize, Constant)>,
) -> Retained<ProtocolObject<dyn MTLFunction>> {
    let of_text = library.get::<TextConstants>().iter();
    constants.extend(of_text.filter_map(|(constant, value)| Some((kernels::constant(name, constant)?, *value))));
    let pipeline = Pipeline { name: name.to_owned(), kernel: Kernel::find(name), constants };
    Retained::of(ProtocolObject::of(Arc::new(pipeline)))
}

impl MTLLibrary for ProtocolObject<dyn MTLLibrary> {
    fn newFunctionWithName(&self, name: &NSString) -> Option<Retained<ProtocolObject<dyn MTLFunction>>> {
        Some(function(self, &name.to_string(), Vec::new()))
    }

    fn newFunctionWithName_constantValues_error(
        &self,
        name: &NSString,
        values: &MTLFunctionConstantValues,
    ) -> Result<Retained<ProtocolObject<dyn MTLFunction>>, Retained<NSError>> {
        let constants = values.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(function(self, &name.to_string(), constants))
    }
}

impl MTLComputePipelineState for ProtocolObject<dyn MTLComputePipelineState> {
    fn maxTotalThreadsPerThreadgroup(&self) -> usize {
        self.get::<Arc<Pipeline>>().most_threads()
    }

    /// None: what a kernel declares is known to the emulator alone, which checks it when the kernel runs.
    fn staticThreadgroupMemoryLength(&self) -> usize {
        0
    }
}
