//! The structs that kernels and host share. All fields are 4 bytes wide, so name, order and type are all there is to agree on;
//! `tests/text.rs` compares them with the kernels' text.

/// A struct as bytes.
pub trait Params {
    /// Its name in the kernels' text.
    const NAME: &'static str;
    /// Name and Metal type of each field.
    const FIELDS: &'static [(&'static str, &'static str)];
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! msl_type {
    (u32) => {
        "uint"
    };
    (f32) => {
        "float"
    };
}

macro_rules! params {
    ($(#[$doc:meta])* $rust:ident = $name:literal { $($(#[$field_doc:meta])* $field:ident: $ty:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Debug, Default)]
        pub struct $rust {
            $($(#[$field_doc])* pub $field: $ty,)*
        }

        impl Params for $rust {
            const NAME: &'static str = $name;
            const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), msl_type!($ty)),)*];

            fn bytes(&self) -> Vec<u8> {
                let mut bytes = Vec::with_capacity(4 * Self::FIELDS.len());
                $(bytes.extend_from_slice(&self.$field.to_le_bytes());)*
                bytes
            }
        }
    };
}

params! {
    /// Of `write`.
    WriteParams = "WriteParams" {
        tokens: u32,
        kv_heads: u32,
        /// RoPE pairs that turn.
        pairs: u32,
        /// 1 / sqrt(head_dim).
        norm: f32,
    }
}

params! {
    /// Of `query`.
    QueryParams = "QueryParams" {
        kv_heads: u32,
        group: u32,
        /// Blocks of 8 columns of a tile.
        blocks: u32,
        /// Partitions in `follow`.
        parts: u32,
        pairs: u32,
        /// Groups of 8 pairs that parabolas, or polynomials, follow.
        followed: u32,
        /// Of 8 fast pairs.
        groups: u32,
        /// Floats of a partition in `follow`.
        record: u32,
        /// Partitions of a simdgroup.
        span: u32,
        /// Whether what half loses of the queries follows them, and terms are floats.
        plain: u32,
        norm: f32,
        /// The scale of logits, base 2, times RoPE's attention factor: products of queries and means are multiplied by it.
        mean_scale: f32,
    }
}

params! {
    /// Of `attend_mma` and `attend_vec`.
    AttendParams = "AttendParams" {
        kv_heads: u32,
        group: u32,
        blocks: u32,
        parts: u32,
        /// A row sees at most so many positions, itself included.
        window: u32,
        scale: f32,
        /// Partition of the grid's first.
        first: u32,
        /// Of 8 fast pairs.
        groups: u32,
        /// Floats of a partition in `follow`.
        record: u32,
    }
}

params! {
    /// Of `reduce`.
    ReduceParams = "ReduceParams" {
        /// (row, query head).
        items: u32,
        heads: u32,
        group: u32,
        parts: u32,
        window: u32,
        /// Whether a simdgroup merges an item alone.
        alone: u32,
        norm: f32,
    }
}

params! {
    /// Of `copy_blocks`.
    CopyParams = "CopyParams" {
        /// 16-byte words of a block.
        words: u32,
    }
}

params! {
    /// A tile as kernels read it.
    TileParams = "Tile" {
        row: u32,
        rows: u32,
        table: u32,
        position: u32,
        first: u32,
        unused: u32,
    }
}

params! {
    /// Of `add_rms_norm`.
    NormParams = "NormParams" {
        width: u32,
        /// Whether delta is added to x, and the sum kept.
        add: u32,
        eps: f32,
    }
}

params! {
    /// Of `gate_mul`.
    GateParams = "GateParams" {
        count: u32,
        /// Silu of the gate, else its sigmoid.
        silu: u32,
    }
}

params! {
    /// Of `top_slices` and `top_rows`.
    TopParams = "TopParams" {
        width: u32,
        count: u32,
        slice: u32,
    }
}
