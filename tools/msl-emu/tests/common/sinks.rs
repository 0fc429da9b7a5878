//! First tokens that a window keeps, and learnt logits that take weight: parameters that no model here sets yet.
use conformance::noise;
use metal::launch::{self, AttendBuffers, QueryBuffers, ReduceBuffers, WriteBuffers};
use metal::{Executor, Form, Params, Shape, Tile};
use turboquant::{Format, PARTITION, RecordLayout};

const D: usize = 64;
const GROUP: usize = 3;
const TOKENS: usize = 1100;
const WINDOW: usize = 100;
const SINKS: usize = 4;

fn floats(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn words(x: impl Iterator<Item = usize>) -> Vec<u8> {
    x.flat_map(|x| (x as u32).to_le_bytes()).collect()
}

fn data(seed: u64, n: usize) -> Vec<f32> {
    (0..n).map(|i| half::f16::from_f32(noise(seed, i as u64)).to_f32()).collect()
}

/// Output of the last token's query heads.
#[expect(clippy::too_many_lines, reason = "to be split")]
fn run<E: Executor>(executor: &E, form: Form, k: &[f32], v: &[f32], q: &[f32], logits: &[f32]) -> Vec<f32> {
    let record = RecordLayout::new(Format::F16, Format::F16, D, 16).unwrap();
    let shape = Shape { form, window: Some(WINDOW), sinks: SINKS, sink_logits: true, ..Shape::new(record, 1, GROUP) };
    let (blocks, parts) = (TOKENS.div_ceil(16), TOKENS.div_ceil(PARTITION));
    let buffer = |bytes: &[u8]| executor.buffer(bytes).unwrap();
    let create = |bytes| executor.create(bytes).unwrap();
    let none = buffer(&[]);
    let cache = create(blocks * shape.page_bytes());
    let (k, v, order) = (buffer(&floats(k)), buffer(&floats(v)), buffer(&words(0..TOKENS)));
    let write = WriteBuffers {
        k: &k,
        v: &v,
        slots: &order,
        positions: &order,
        rotation: &none,
        key_means: &none,
        value_means: &none,
        starts: &none,
        offsets: &none,
        cache: &cache,
    };
    let tile = Tile { rows: 0..1, table: 0, position: TOKENS - 1, form };
    let (q, tiles) = (buffer(&floats(q)), buffer(&tile.params(shape.window, shape.sinks).bytes()));
    let (queries, follow) = (create(D * 32), create(parts * shape.follow_floats() * 4));
    let query = QueryBuffers {
        q: &q,
        tiles: &tiles,
        rotation: &none,
        key_means: &none,
        starts: &none,
        lists: &none,
        fits: &none,
        queries: &queries,
        follow: &follow,
    };
    let (part_o, part_ml) = (create(GROUP * parts * D * 4), create(GROUP * parts * 8));
    let attend = AttendBuffers {
        queries: &queries,
        tiles: &tiles,
        tables: &order,
        cache: &cache,
        follow: &follow,
        fast_tiles: &none,
        fast_turns: &none,
        part_o: &part_o,
        part_ml: &part_ml,
    };
    let (positions, sink_logits, out) =
        (buffer(&words(TOKENS - 1..TOKENS)), buffer(&floats(logits)), create(GROUP * D * 4));
    let reduce = ReduceBuffers {
        part_o: &part_o,
        part_ml: &part_ml,
        positions: &positions,
        rotation: &none,
        value_means: &none,
        sink_logits: &sink_logits,
        out: &out,
    };
    let launches = [
        launch::write(&shape, TOKENS, &write),
        launch::query(&shape, form, None, 0, 1, parts, &query),
        launch::attend(&shape, form, 1, parts, &attend),
        launch::reduce(&shape, 0, 1, parts, &reduce),
    ];
    executor.run(&launches).unwrap();
    let mut bytes = vec![0; GROUP * D * 4];
    executor.download(&out, 0, &mut bytes).unwrap();
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The last token's query heads against f64, in both forms of single rows.
pub fn check<E: Executor>(executor: &E, form: Form) -> Result<(), String> {
    let (k, v, q) = (data(1, TOKENS * D), data(2, TOKENS * D), data(3, GROUP * D));
    let logits = [1.5, -2.0, 4.0];
    let got = run(executor, form, &k, &v, &q, &logits);
    for (head, got) in got.chunks(D).enumerate() {
        let seen = (0..SINKS).chain(TOKENS - WINDOW..TOKENS);
        let dot = |t: usize| (0..D).map(|i| f64::from(q[head * D + i]) * f64::from(k[t * D + i])).sum::<f64>();
        let weights: Vec<(usize, f64)> = seen.map(|t| (t, (0.125 * dot(t)).exp())).collect();
        let total: f64 = weights.iter().map(|(_, w)| w).sum::<f64>() + f64::from(logits[head]).exp();
        let want: Vec<f64> =
            (0..D).map(|i| weights.iter().map(|(t, w)| w * f64::from(v[t * D + i])).sum::<f64>() / total).collect();
        let error = super::relative(got, &want);
        if error >= 4e-4 {
            return Err(format!("head {head}: error {error:.1e}"));
        }
    }
    Ok(())
}
