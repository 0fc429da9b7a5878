//! A cache of random tokens on the device, and the launches of one attention over it.
use attention::{Centring, KeyCentring, LayerGeometry, ModelGeometry, Rope};
use metal::launch::{self, AttendBuffers, QueryBuffers, ReduceBuffers, WriteBuffers};
use metal::{AttendKernel, Executor, Launch, LayerTables, Params, PartitionTables, Shape, Tile};
use msl_emu::cuda::{CudaExecutor, Memory};
use turboquant::{CorrectionTables, Format, PARTITION, RecordLayout};

pub const KV_HEADS: usize = 8;
pub const GROUP: usize = 4;
/// Tokens in the cache.
pub const TOTAL: usize = 1 << 19;
pub const BLOCK: usize = 16;
/// Tokens of a launch of `write`; the same ones fill the whole cache.
const WRITTEN: usize = 8192;

/// Everything that launches of one shape bind.
pub struct Workload<'a> {
    pub executor: &'a CudaExecutor,
    pub shape: Shape,
    tables: CorrectionTables,
    buffers: Vec<Memory>,
}

/// Positions in `Workload::buffers`.
#[derive(Clone, Copy)]
enum At {
    Rotation,
    KeyConstants,
    Starts,
    Fits,
    Lists,
    HighOperands,
    HighAngles,
    Blocks,
    Cache,
}

pub fn noise(seed: u64, n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| conformance::noise(seed, i as u64).to_le_bytes()).collect()
}

pub fn words(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn angle_bytes(rope: &Rope, positions: &[u32]) -> Vec<u8> {
    rope.angles(positions).into_iter().flatten().flat_map(f32::to_le_bytes).collect()
}

/// From which keys the mean is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Centred {
    Nothing,
    Coded,
    /// Keys stored as floats too, which are followed exactly.
    Floats,
}

/// Qwen3's embedding, of base 1e6.
fn rope(d: usize) -> Result<Rope, String> {
    let frequencies = (0..d / 2).map(|i| 1e6f32.powf(-2.0 * i as f32 / d as f32)).collect();
    Rope::new(frequencies, 1.0).map_err(|e| e.to_string())
}

fn centring(d: usize, keys: KeyCentring) -> Result<Centring, String> {
    let layer = LayerGeometry {
        num_heads: KV_HEADS * GROUP,
        kv_heads: KV_HEADS,
        head_dim: d,
        scale: 1.0 / (d as f32).sqrt(),
        sliding_window: None,
        rope: Some(rope(d)?),
    };
    let geometry = ModelGeometry { layers: vec![layer] };
    let constants = conformance::large_constants(&geometry);
    Centring::new(&geometry, &constants, |_| keys).map_err(|e| e.to_string())
}

impl<'a> Workload<'a> {
    pub fn new(executor: &'a CudaExecutor, k: Format, v: Format, d: usize, centred: Centred) -> Result<Self, String> {
        let coded = centred != Centred::Nothing && k.is_rotated();
        let centring = centring(d, KeyCentring::of(k))?;
        let keys = &centring.layers[0];
        let record = RecordLayout::new(k, v, d, BLOCK).map_err(|e| e.to_string())?;
        let shape = Shape {
            keys_centred: coded || centred == Centred::Floats,
            exact_groups: if centred == Centred::Floats { metal::exact_groups(keys) } else { None },
            ..Shape::new(record, KV_HEADS, GROUP)
        };
        let correction = keys[0].tables().clone();
        let partitions =
            if k.is_rotated() { PartitionTables::new } else { PartitionTables::exact }(&correction, 1 << 17);
        let tables = LayerTables::new(keys);
        let all = TOTAL / BLOCK;
        // A fixed walk through all blocks: the stride is odd.
        let blocks = words((0..all).map(|i| (i * 12_289 % all) as u32));
        let rotation = metal::rotation_words(&shape);
        let parts: [&[u8]; 8] = [
            &rotation,
            &tables.key_constants,
            &partitions.starts,
            &partitions.fits,
            &tables.lists,
            &tables.high_operands,
            &tables.high_angles,
            &blocks,
        ];
        let buffer = |bytes: &&[u8]| executor.buffer(bytes).map_err(|e| e.to_string());
        let mut buffers = parts.iter().map(buffer).collect::<Result<Vec<_>, _>>()?;
        buffers.push(executor.create(all * shape.page_bytes()).map_err(|e| e.to_string())?);
        let workload = Workload { executor, shape, tables: correction, buffers };
        workload.fill()?;
        Ok(workload)
    }

    fn get(&self, at: At) -> &Memory {
        &self.buffers[at as usize]
    }

    /// Writes random tokens to every slot.
    fn fill(&self) -> Result<(), String> {
        let mut store = Store::new(self, WRITTEN)?;
        for start in (0..TOTAL).step_by(WRITTEN) {
            store.move_to(start)?;
            self.executor.run(&[store.launch()]).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Bytes of K and V of one token.
    pub fn token_bytes(&self) -> usize {
        self.shape.page_bytes() / BLOCK
    }
}

/// A launch of `write` with random tokens.
pub struct Store<'a> {
    workload: &'a Workload<'a>,
    tokens: usize,
    k: Memory,
    v: Memory,
    slots: Memory,
    angles: Memory,
    positions: Memory,
}

impl<'a> Store<'a> {
    pub fn new(workload: &'a Workload<'a>, tokens: usize) -> Result<Self, String> {
        let buffer = |bytes: &[u8]| workload.executor.buffer(bytes).map_err(|e| e.to_string());
        let n = tokens * KV_HEADS * workload.shape.head_dim();
        let positions: Vec<u32> = (0..tokens as u32).collect();
        Ok(Store {
            workload,
            tokens,
            k: buffer(&noise(1, n))?,
            v: buffer(&noise(2, n))?,
            slots: buffer(&words(positions.iter().copied()))?,
            angles: buffer(&angle_bytes(workload.tables.rope(), &positions))?,
            positions: buffer(&words(positions))?,
        })
    }

    /// Stores to the slots from `start` on.
    fn move_to(&mut self, start: usize) -> Result<(), String> {
        let slots = words((start..start + self.tokens).map(|t| t as u32));
        self.slots = self.workload.executor.buffer(&slots).map_err(|e| e.to_string())?;
        Ok(())
    }

    pub fn launch(&self) -> Launch<'_, Memory> {
        let workload = self.workload;
        let buffers = WriteBuffers {
            k: &self.k,
            v: &self.v,
            slots: &self.slots,
            angles: &self.angles,
            rotation: workload.get(At::Rotation),
            key_constants: workload.get(At::KeyConstants),
            positions: &self.positions,
            cache: workload.get(At::Cache),
        };
        launch::write(&workload.shape, self.tokens, &buffers)
    }
}

/// One attention of `rows` rows at the end of each of `seqs` contexts of `context` tokens.
pub struct Attention<'a> {
    workload: &'a Workload<'a>,
    kernel: AttendKernel,
    rows: usize,
    parts: usize,
    tiles: usize,
    /// Tiles over different parts of the cache, so that no launch finds its tokens in a cache of the GPU.
    turns: Vec<Memory>,
    q: Memory,
    positions: Memory,
    angles: Memory,
    queries: Memory,
    corrections: Memory,
    part_o: Memory,
    part_ml: Memory,
    out: Memory,
}

impl<'a> Attention<'a> {
    pub fn new(
        workload: &'a Workload<'a>,
        kernel: AttendKernel,
        context: usize,
        seqs: usize,
        chunk: usize,
    ) -> Result<Self, String> {
        let (shape, executor) = (&workload.shape, workload.executor);
        let (rows, parts) = (seqs * chunk, context.div_ceil(PARTITION));
        let error = |e: metal::ExecError| e.to_string();
        let per_tile = shape.tile_rows(kernel);
        let mut turns = Vec::new();
        let mut tiles = 0;
        for turn in 0..(TOTAL / (context * seqs)).min(16) {
            let mut bytes = Vec::new();
            tiles = 0;
            for (seq, at) in (0..seqs).flat_map(|seq| (0..chunk).step_by(per_tile).map(move |at| (seq, at))) {
                let first = seq * chunk + at;
                let tile = Tile {
                    rows: first..first + per_tile.min(chunk - at),
                    table: (turn * seqs + seq) * context / BLOCK,
                    position: context - chunk + at,
                    kernel,
                };
                bytes.extend(tile.params(None).bytes());
                tiles += 1;
            }
            turns.push(executor.buffer(&bytes).map_err(error)?);
        }
        let heads = KV_HEADS * GROUP;
        let d = shape.head_dim();
        let create = |bytes| executor.create(bytes).map_err(error);
        let positions: Vec<u32> = (0..rows).map(|r| (context - chunk + r % chunk) as u32).collect();
        Ok(Attention {
            workload,
            kernel,
            rows,
            parts,
            tiles,
            turns,
            q: executor.buffer(&noise(3, rows * heads * d)).map_err(error)?,
            angles: executor.buffer(&angle_bytes(workload.tables.rope(), &positions)).map_err(error)?,
            positions: executor.buffer(&words(positions)).map_err(error)?,
            queries: create(tiles * KV_HEADS * shape.octets(kernel) * d * 32)?,
            corrections: create(tiles * KV_HEADS * shape.octets(kernel) * parts * shape.correction_floats() * 4)?,
            part_o: create(rows * heads * parts * d * 4)?,
            part_ml: create(rows * heads * parts * 8)?,
            out: create(rows * heads * d * 4)?,
        })
    }

    /// Query, attend and reduce for each turn.
    pub fn launches(&self) -> Vec<[Launch<'_, Memory>; 3]> {
        let (w, shape) = (self.workload, &self.workload.shape);
        let all = |tiles| {
            let query = QueryBuffers {
                q: &self.q,
                tiles,
                rotation: w.get(At::Rotation),
                key_constants: w.get(At::KeyConstants),
                starts: w.get(At::Starts),
                lists: w.get(At::Lists),
                fits: w.get(At::Fits),
                angles: &self.angles,
                queries: &self.queries,
                corrections: &self.corrections,
            };
            let attend = AttendBuffers {
                queries: &self.queries,
                tiles,
                tables: w.get(At::Blocks),
                cache: w.get(At::Cache),
                corrections: &self.corrections,
                high_operands: w.get(At::HighOperands),
                high_angles: w.get(At::HighAngles),
                part_o: &self.part_o,
                part_ml: &self.part_ml,
            };
            let reduce = ReduceBuffers {
                part_o: &self.part_o,
                part_ml: &self.part_ml,
                positions: &self.positions,
                rotation: w.get(At::Rotation),
                out: &self.out,
            };
            [
                launch::query(shape, self.kernel, Some(&w.tables), 0, self.tiles, self.parts, &query),
                launch::attend(shape, self.kernel, self.tiles, self.parts, &attend),
                launch::reduce(shape, 0, self.rows, self.parts, &reduce),
            ]
        };
        self.turns.iter().map(all).collect()
    }
}
