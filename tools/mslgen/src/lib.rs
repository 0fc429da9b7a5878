//! Rewrites a Metal kernel file to C++ and generates its launcher.
//!
//! Input is MSL text after `clang -E`: macros and project headers expanded, `<metal_stdlib>` an empty file. Every line of the
//! output still belongs to the same line of the `.metal` file, since linemarkers are kept. Rewritten is only what a macro cannot
//! express; the shims of `msl-emu` define the rest:
//!
//! | MSL | C++ |
//! |---|---|
//! | `threadgroup T a[N];` in a function | `MSL_TGVAR T a[N]; MSL_TG_TOUCH(a)` |
//! | `constant T a[N] = ..;` in a namespace | `MSL_CONSTVAR T a[N] = ..;` |
//! | `constant T n [[function_constant(i)]];` | `MSL_FCVAR T n MSL_FCINIT(i); MSL_FCDEF(n)` |
//! | `1.5h`, `2.0bf`, `1.5` | `half(1.5f)`, `bfloat(2.0f)`, `1.5f` |
//! | `float4(` as a constructor | `MSL_CTOR(float4)(` |
//! | `device`, `constant`, `threadgroup`, `thread`, `kernel` | `MSL_DEVICE` and so on |
//! | a function definition | the same after `MSL_FN` |

mod emit;
mod lex;
mod rewrite;
mod words;

pub use emit::{Target, emit};
pub use rewrite::rewrite;

/// Why a kernel file cannot be rewritten.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    #[error("kernel {0}: the parameter list does not end")]
    Unterminated(String),
    #[error("kernel {kernel}: parameter without an attribute: {parameter}")]
    NoAttribute { kernel: String, parameter: String },
    #[error("kernel {kernel}: [[{attribute}]] is not supported")]
    Attribute { kernel: String, attribute: String },
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
    /// `[[buffer(i)]]`, a pointer.
    Pointer(u32),
    /// `[[buffer(i)]]`, a reference.
    Reference(u32),
    /// `[[threadgroup(i)]]`.
    Threadgroup(u32),
    /// A position or size: the attribute's name.
    Builtin(String),
}

/// A kernel function or template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    pub name: String,
    pub is_template: bool,
    /// Binding and declaration of each parameter.
    pub parameters: Vec<(Binding, String)>,
}

/// A kernel that the host can launch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    pub host_name: String,
    /// What to call: `f` or `f<arguments>`.
    pub expression: String,
    pub kernel: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionConstant {
    pub index: u32,
    pub name: String,
    pub ty: String,
}

/// A rewritten file.
#[derive(Clone, Default, Debug)]
pub struct Unit {
    pub text: String,
    pub kernels: Vec<Kernel>,
    pub instances: Vec<Instance>,
    pub function_constants: Vec<FunctionConstant>,
    /// Names of the `constant` variables.
    pub constants: Vec<String>,
}
