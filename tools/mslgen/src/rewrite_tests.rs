use super::*;
use crate::{Binding, FunctionConstant};

fn text(source: &str) -> String {
    rewrite(source).unwrap().text
}

#[test]
fn literals_are_float_unless_they_say_half() {
    let source = "void f() { g(1.5, 2e3, 3, 1.5f, 1h, 0.5bf, 0x1eu, .25); }";
    assert!(text(source).contains("g(1.5f, 2e3f, 3, 1.5f, half(1.0f), bfloat(0.5f), 0x1eu, .25f)"), "{}", text(source));
}

#[test]
fn address_spaces_and_constructors_become_macros() {
    let out =
        text("inline float4 f(device const float4* p, thread uint& n) { return float4(p[0]) + vec<float, 4>(1.0f); }");
    assert!(out.starts_with("MSL_FN inline float4 f(MSL_DEVICE const float4* p, MSL_THREAD uint& n)"), "{out}");
    assert!(out.contains("MSL_CTOR(float4)(p[0]) + MSL_CTOR(vec<float, 4>)(1.0f)"), "{out}");
}

#[test]
fn threadgroup_variables_are_touched_but_pointers_are_not() {
    let out = text("kernel void k() { threadgroup float a[4], b[2 * 3]; threadgroup float* p = a; }");
    assert!(out.contains("MSL_TGVAR float a[4], b[2 * 3]; MSL_TG_TOUCH(a) MSL_TG_TOUCH(b)"), "{out}");
    assert!(out.contains("MSL_THREADGROUP float* p = a;"), "{out}");
}

#[test]
fn constants_and_function_constants_are_found() {
    let unit = rewrite("constant float t[2] = {1.0, 2.0};\nconstant bool flag [[function_constant(3)]];").unwrap();
    assert_eq!(
        unit.text,
        "MSL_CONSTVAR float t[2] = {1.0f, 2.0f};\nMSL_FCVAR bool flag MSL_FCINIT(3) ; MSL_FCDEF(flag)"
    );
    assert_eq!(unit.constants, ["t"]);
    let expected = FunctionConstant { index: 3, name: "flag".into(), ty: "bool".into() };
    assert_eq!(unit.function_constants, [expected]);
}

#[test]
fn templates_are_launched_by_host_name_and_plain_kernels_by_name() {
    let source = "template <int D, class T> kernel void f(device T* y [[buffer(0)]], constant uint& n [[buffer(1)]], \
                  uint i [[thread_position_in_grid]]) { y[i] = T(D); }\n\
                  template [[host_name(\"f_\" \"8\")]] [[kernel]] decltype(f<8, float>) f<8, float>;\n\
                  kernel void g(threadgroup float* s [[threadgroup(2)]]) {}";
    let unit = rewrite(source).unwrap();
    let f = Instance { host_name: "f_8".into(), expression: "f < 8 , float >".into(), kernel: "f".into() };
    let g = Instance { host_name: "g".into(), expression: "g".into(), kernel: "g".into() };
    assert_eq!(unit.instances, [f, g]);
    let bindings = |k: usize| unit.kernels[k].parameters.iter().map(|(b, _)| b.clone()).collect::<Vec<_>>();
    let position = Binding::Builtin("thread_position_in_grid".into());
    assert_eq!(bindings(0), [Binding::Pointer(0), Binding::Reference(1), position]);
    assert_eq!(bindings(1), [Binding::Threadgroup(2)]);
    assert!(!unit.text.contains("decltype") && !unit.text.contains("[["), "{}", unit.text);
}

#[test]
fn a_kernel_may_say_the_most_threads_of_a_threadgroup() {
    let unit =
        rewrite("[[kernel, max_total_threads_per_threadgroup(64)]] void f() {}\n[[kernel]] void g() {}").unwrap();
    assert_eq!(
        unit.kernels.iter().map(|k| (k.name.as_str(), k.most_threads)).collect::<Vec<_>>(),
        [("f", Some(64)), ("g", None)]
    );
    let words: Vec<&str> = unit.text.split_whitespace().collect();
    assert_eq!(words, ["MSL_KERNEL", "void", "f()", "{}", "MSL_KERNEL", "void", "g()", "{}"]);
    let unknown = rewrite("[[kernel, max_total_threads_per_threadgroup(kMost)]] void f() {}").unwrap_err();
    assert_eq!(unknown, Error::Threads { kernel: "f".into(), number: "kMost".into() });
}

#[test]
fn lines_stay_where_they_were() {
    let source =
        "# 1 \"k.metal\"\nconstant int a = 1;\n\nkernel void k(\n  device int* y [[buffer(0)]]) {\n  y[0] = a;\n}\n";
    assert_eq!(text(source).lines().count(), source.lines().count());
}

#[test]
fn what_metal_refuses_is_refused() {
    assert_eq!(rewrite("float x = 1.0;").unwrap_err(), Error::ProgramScope("float x = 1.0f".into()));
    let error = rewrite("kernel void k(device int* y) {}").unwrap_err();
    assert_eq!(error, Error::NoAttribute { kernel: "k".into(), parameter: "device int * y".into() });
    assert_eq!(rewrite("kernel void k(device int* y [[buffer(0)]]").unwrap_err(), Error::Unterminated("k".into()));
    let twice = rewrite("kernel void k(device int* y [[buffer(0)]], device int* z [[buffer(0)]]) {}").unwrap();
    let error = crate::emit(&twice, crate::Target::Cpu, "k").unwrap_err();
    assert_eq!(error, Error::BoundTwice { kernel: "k".into(), index: 0 });
    let two = rewrite("kernel void k(constant uint& y [[buffer(0)]], constant uint& z [[buffer(1)]]) {}").unwrap();
    assert_eq!(crate::emit(&two, crate::Target::Cuda, "k").unwrap_err(), Error::References("k".into()));
    let unknown = rewrite("kernel void k(uint q [[dispatch_quadgroups]]) {}").unwrap();
    assert!(matches!(crate::emit(&unknown, crate::Target::Cpu, "k"), Err(Error::Attribute { .. })));
}
