//! Rewrites a Metal kernel file to C++ and generates its launcher.
//!
//! The input is MSL text after `clang -E`: macros and project headers are expanded, and `<metal_stdlib>` is an empty
//! file. Every line of the output still belongs to the same line of the `.metal` file, since linemarkers are kept. Only
//! what a macro cannot express is rewritten; the shims of `msl-emu` define the rest:
//!
//! | MSL | C++ |
//! |---|---|
//! | `threadgroup T a[N];` in a function | `MSL_TGVAR T a[N]; MSL_TG_TOUCH(a)` |
//! | `constant T a[N] = ..;` in a namespace | `MSL_CONSTVAR T a[N] = ..;` |
//! | `constant T n [[function_constant(i)]];` | `MSL_FCVAR T n MSL_FCINIT(i); MSL_FCDEF(n)` |
//! | `1.5h`, `2.0bf`, `1.5` | `half(1.5f)`, `bfloat(2.0f)`, `1.5f` |
//! | `float4(` as a constructor | `MSL_CTOR(float4)(` |
//! | `device`, `constant`, `threadgroup`, `thread`, `kernel` | `MSL_DEVICE` and so on |
//! | a function definition | `MSL_FN` and the definition |
#![warn(missing_docs)]

mod emit;
mod lex;
mod rewrite;
mod words;

pub use emit::{Target, emit};
pub use rewrite::rewrite;

/// Why a kernel file cannot be rewritten.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say what the fields are
pub enum Error {
    #[error("kernel {0}: the parameter list does not end")]
    Unterminated(String),
    #[error("kernel {kernel}: parameter without an attribute: {parameter}")]
    NoAttribute { kernel: String, parameter: String },
    #[error("kernel {kernel}: [[{attribute}]] is not supported")]
    Attribute { kernel: String, attribute: String },
    #[error("kernel {kernel}: [[max_total_threads_per_threadgroup({number})]] is not a number")]
    Threads { kernel: String, number: String },
    #[error("kernel {kernel}: buffer index {index} is not allowed; allowed: 0 to 30")]
    BufferIndex { kernel: String, index: u32 },
    #[error("kernel {kernel}: buffer {index} is bound twice")]
    BoundTwice { kernel: String, index: u32 },
    #[error("kernel {0}: more than one reference; allowed for nvcc: one, to the params struct")]
    References(String),
    #[error("no kernel {0} to instantiate")]
    NoKernel(String),
    #[error("a variable at program scope must be in the constant address space: {0}")]
    ProgramScope(String),
}

/// What a kernel parameter is bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Binding {
    /// A pointer with `[[buffer(i)]]`.
    Pointer(u32),
    /// A reference with `[[buffer(i)]]`.
    Reference(u32),
    /// A pointer with `[[threadgroup(i)]]`.
    Threadgroup(u32),
    /// A position or a size, by the attribute's name.
    Builtin(String),
}

/// A kernel function or template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// The function's name.
    pub name: String,
    /// Whether it is a template, which only instances of it make launchable.
    pub is_template: bool,
    /// The most threads of a threadgroup, where `[[max_total_threads_per_threadgroup]]` says them.
    pub most_threads: Option<u32>,
    /// The binding and the declaration of each parameter.
    pub parameters: Vec<(Binding, String)>,
}

/// A kernel that the host can launch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    /// The name by which the host launches it.
    pub host_name: String,
    /// The expression to call: `f` or `f<arguments>`.
    pub expression: String,
    /// The name of the [`Kernel`].
    pub kernel: String,
}

/// A variable with `[[function_constant(i)]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionConstant {
    /// The index that the host sets it by.
    pub index: u32,
    /// The variable's name.
    pub name: String,
    /// The variable's type.
    pub ty: String,
}

/// A rewritten file.
#[derive(Clone, Default, Debug)]
pub struct Unit {
    /// The C++ text, without launchers.
    pub text: String,
    /// The kernels in their order.
    pub kernels: Vec<Kernel>,
    /// What the host can launch.
    pub instances: Vec<Instance>,
    /// The function constants in their order.
    pub function_constants: Vec<FunctionConstant>,
    /// The names of the other `constant` variables.
    pub constants: Vec<String>,
}
