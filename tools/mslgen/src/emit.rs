//! Writes a rewritten kernel file as C++, with what launches its kernels.
use crate::{Binding, Error, Instance, Kernel, Unit};
use std::fmt::Write;

/// The compiler that a file is rewritten for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The CPU emulator: kernels are registered by host name.
    Cpu,
    /// nvcc: there is a `__global__` function for each host name.
    Cuda,
    /// clang as a linter: the text is compiled only, with real address spaces.
    Lint,
}

const VECTORS: [&str; 6] = [
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "thread_position_in_grid",
    "threads_per_threadgroup",
    "threadgroups_per_grid",
    "threads_per_grid",
];
const SCALARS: [&str; 5] = [
    "simdgroup_index_in_threadgroup",
    "thread_index_in_simdgroup",
    "thread_index_in_threadgroup",
    "simdgroups_per_threadgroup",
    "threads_per_simdgroup",
];
const LARGEST_BUFFER_INDEX: u32 = 30;
/// The most threads of a threadgroup that Metal allows.
const MOST_THREADS: u32 = 1024;

/// Returns the C++ file of `unit`; `stem` names the function that registers its kernels with the CPU emulator.
///
/// # Errors
/// [`Error`] if a kernel has parameters that `target` does not support, or if an instance names no kernel.
pub fn emit(unit: &Unit, target: Target, stem: &str) -> Result<String, Error> {
    let header = match target {
        Target::Cpu => "metal_shim.h",
        Target::Cuda => "metal_cuda_shim.cuh",
        Target::Lint => "metal_lint.h",
    };
    // Each file has a namespace of its own: files include the same headers, but have different function constants.
    let user = if target == Target::Cpu { format!("user_{}", identifier(stem)) } else { "user".to_owned() };
    let mut out = format!("#include \"{header}\"\nnamespace metal {{ namespace {user} {{\n{}", unit.text);
    out.push_str("\n# 1 \"generated\"\n");
    match target {
        Target::Cpu => cpu(unit, &mut out)?,
        Target::Cuda => cuda(unit, &mut out)?,
        Target::Lint => lint(unit, &mut out),
    }
    out.push_str("} }\n");
    if target == Target::Cpu {
        let name = identifier(stem);
        let _ = writeln!(
            out,
            "extern \"C\" void msl_register_{name}() {{ using namespace metal::{user}; \
             mslrt::register_unit(msl_kernels, sizeof(msl_kernels) / sizeof(msl_kernels[0]), msl_constants, \
             msl_ranges); }}"
        );
    }
    Ok(out)
}

fn cpu(unit: &Unit, out: &mut String) -> Result<(), Error> {
    for instance in &unit.instances {
        let arguments = arguments(kernel(unit, instance)?, Target::Cpu)?;
        let (name, call) = (identifier(&instance.host_name), &instance.expression);
        let _ = writeln!(out, "static void msl_thunk_{name}(const mslrt::Ctx& c) {{ {call}({arguments}); }}");
    }
    out.push_str("static const mslrt::KernelInfo msl_kernels[] = {\n");
    for instance in &unit.instances {
        let kernel = kernel(unit, instance)?;
        let [buffers, written, threadgroup] = masks(kernel)?;
        let threads = kernel.most_threads.unwrap_or(MOST_THREADS).min(MOST_THREADS);
        let (host_name, name) = (&instance.host_name, identifier(&instance.host_name));
        let _ = writeln!(
            out,
            "  {{\"{host_name}\", msl_thunk_{name}, {buffers}u, {written}u, {threadgroup}u, {threads}u}},"
        );
    }
    out.push_str("};\nstatic const mslrt::FcInfo msl_constants[] = {\n");
    for constant in &unit.function_constants {
        let (index, name) = (constant.index, &constant.name);
        let _ = writeln!(out, "  {{{index}u, \"{name}\", &{name}, sizeof({name}), &msl_fcdef_{name}}},");
    }
    out.push_str("  {~0u, nullptr, nullptr, 0, nullptr}};\nstatic const mslrt::Range msl_ranges[] = {\n");
    for constant in &unit.constants {
        let _ = writeln!(out, "  {{(const void*)&{constant}, sizeof({constant})}},");
    }
    out.push_str("  {nullptr, 0}};\n");
    Ok(())
}

fn cuda(unit: &Unit, out: &mut String) -> Result<(), Error> {
    for instance in &unit.instances {
        let kernel = kernel(unit, instance)?;
        if kernel.parameters.iter().filter(|(binding, _)| matches!(binding, Binding::Reference(_))).count() > 1 {
            return Err(Error::References(kernel.name.clone()));
        }
        let arguments = arguments(kernel, Target::Cuda)?;
        let dynamic = kernel.parameters.iter().any(|(binding, _)| matches!(binding, Binding::Threadgroup(_)));
        let memory = if dynamic { "extern __shared__ __align__(16) unsigned char msl_dyn[]; " } else { "" };
        let (name, call) = (&instance.host_name, &instance.expression);
        let _ = writeln!(
            out,
            "extern \"C\" __global__ void {name}(const __grid_constant__ metal::msl_args A) \
             {{ {memory}{call}({arguments}); }}"
        );
    }
    Ok(())
}

/// Writes no launcher: taking a template's address instantiates it.
fn lint(unit: &Unit, out: &mut String) {
    for (i, instance) in unit.instances.iter().enumerate().filter(|(_, instance)| instance.expression.contains('<')) {
        let _ = writeln!(out, "auto msl_instance_{i} = &{};", instance.expression);
    }
}

fn kernel<'a>(unit: &'a Unit, instance: &Instance) -> Result<&'a Kernel, Error> {
    let found = unit.kernels.iter().find(|kernel| kernel.name == instance.kernel);
    found.ok_or_else(|| Error::NoKernel(instance.kernel.clone()))
}

fn arguments(kernel: &Kernel, target: Target) -> Result<String, Error> {
    let argument = |binding: &Binding| {
        Ok(match (binding, target) {
            (Binding::Pointer(i), Target::Cuda) => format!("metal::msl_ptr{{A.b[{i}]}}"),
            (Binding::Reference(_), Target::Cuda) => "metal::msl_ref{A.constants}".to_owned(),
            (Binding::Pointer(i), _) => format!("MSL_PTR({i})"),
            (Binding::Reference(i), _) => format!("MSL_REF({i})"),
            (Binding::Threadgroup(i), _) => format!("MSL_TGARG({i})"),
            (Binding::Builtin(name), _) if VECTORS.contains(&name.as_str()) => format!("MSL_V3({name})"),
            (Binding::Builtin(name), _) if SCALARS.contains(&name.as_str()) => format!("MSL_V1({name})"),
            (Binding::Builtin(name), _) => {
                return Err(Error::Attribute { kernel: kernel.name.clone(), attribute: name.clone() });
            }
        })
    };
    let all: Result<Vec<String>, Error> = kernel.parameters.iter().map(|(binding, _)| argument(binding)).collect();
    Ok(all?.join(", "))
}

/// Returns three masks with a bit for each index: buffers, buffers that are written, and threadgroup arguments.
fn masks(kernel: &Kernel) -> Result<[u32; 3], Error> {
    let [mut buffers, mut written, mut threadgroup] = [0u32; 3];
    for (binding, declaration) in &kernel.parameters {
        match *binding {
            Binding::Pointer(index) | Binding::Reference(index) => {
                if index > LARGEST_BUFFER_INDEX {
                    return Err(Error::BufferIndex { kernel: kernel.name.clone(), index });
                }
                if buffers & (1 << index) != 0 {
                    return Err(Error::BoundTwice { kernel: kernel.name.clone(), index });
                }
                buffers |= 1 << index;
                if !declaration.split(' ').any(|word| word == "const" || word == "constant") {
                    written |= 1 << index;
                }
            }
            Binding::Threadgroup(index) => threadgroup |= 1 << index.min(31),
            Binding::Builtin(_) => {}
        }
    }
    Ok([buffers, written, threadgroup])
}

fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}
