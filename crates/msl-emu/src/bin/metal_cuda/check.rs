//! Every kernel against f64, by the code that tests it in the emulator.
use crate::common::{Cache, Case, relative};
use metal::{Element, Form};
use msl_emu::cuda::CudaExecutor;
use turboquant::Format::{self, *};

const PAIRS: [(Format, Format); 12] = [
    (F16, F16),
    (Bf16, Bf16),
    (Tq8, Tq8),
    (Tq8, Tq4),
    (Tq5, Tq5),
    (Tq4, Tq4),
    (Tq3, Tq3),
    (Tq2, Tq2),
    (Affine8, Lloyd3),
    (Affine5, Lloyd5),
    (Affine4, Lloyd4),
    (Affine4, Lloyd2),
];

/// All pairs at D = 64 and 128; the larger and odd head sizes with one pair of each kind of plane.
pub fn all(executor: impl Fn() -> CudaExecutor, filter: &str) -> Result<(), String> {
    let mut failed = 0;
    for d in [64, 80, 96, 128, 256, 512] {
        for (k, v) in PAIRS {
            let common = d == 64 || d == 128 || matches!((k, v), (F16, F16) | (Tq5, Tq5) | (Tq4, Tq4));
            for form in [Form::Mma, Form::Vec] {
                let case = Case { centred: k.is_rotated(), form, element: Element::F16, ..Case::new(k, v, d) };
                let name = format!("{k:?}/{v:?} d{d} {form:?}");
                if common && name.contains(filter) {
                    failed += usize::from(!check(executor(), case, &name));
                }
            }
        }
    }
    if failed > 0 { Err(format!("{failed} cases failed")) } else { Ok(()) }
}

/// Single rows, and a chunk of 70 rows behind a context, of 1,300 tokens.
fn check(executor: CudaExecutor, case: Case, name: &str) -> bool {
    let (tokens, chunk) = (1300, 70);
    let runs = executor.device().is_some();
    let mut cache = Cache::new(executor, case, tokens);
    cache.write();
    let (q, rows) = (cache.query(5, 1), cache.query(6, chunk));
    let one = cache.attend(&q, tokens - 1, tokens);
    let many = cache.attend(&rows, tokens - chunk, tokens);
    if !runs {
        return true;
    }
    let width = q.len();
    let row = 37;
    let error = relative(&one, &cache.expect(&q, tokens - 1));
    let of_chunk =
        relative(&many[row * width..][..width], &cache.expect(&rows[row * width..][..width], tokens - chunk + row));
    // Outputs are rounded to half: 2e-4 beside the bounds of tests/kernels.rs.
    let good = error < 6e-4 && of_chunk < 6e-4;
    println!("{name}: {error:.1e}, in a chunk {of_chunk:.1e}{}", if good { "" } else { " FAILED" });
    good
}
