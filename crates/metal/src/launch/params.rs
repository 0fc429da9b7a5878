//! The structs that kernels and host share. All fields are 4 bytes wide, so that name, order and type are all there is
//! to agree on; `tests/text.rs` compares them with the kernels' text.

/// A struct as bytes.
pub trait Params {
    /// Its name in the kernels' text.
    const NAME: &'static str;
    /// Name and Metal type of each field.
    const FIELDS: &'static [(&'static str, &'static str)];
    /// The fields in order, little-endian.
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
    /// The parameters of `write`.
    WriteParams = "WriteParams" {
        /// Tokens that are stored.
        tokens: u32,
        /// RoPE pairs of a head.
        pairs: u32,
        /// 1 / sqrt(head_dim).
        norm: f32,
    }
}

params! {
    /// The parameters of `query`.
    QueryParams = "QueryParams" {
        /// Column octets of a tile.
        octets: u32,
        /// Partitions for which the mean correction is prepared.
        partitions: u32,
        /// RoPE pairs of a head.
        pairs: u32,
        /// How many times 8 pairs quadratics or polynomials correct.
        approximated: u32,
        /// Pair groups: 8 high-frequency pairs each.
        pair_groups: u32,
        /// f32 values of a partition in the buffer of mean corrections.
        correction_stride: u32,
        /// Partitions that a simdgroup prepares.
        partitions_each: u32,
        /// Whether the queries are followed by what they lose when they are rounded to halves, and terms are floats:
        /// what `attend_vec` reads.
        append_low_halves: u32,
        /// 1 / sqrt(head_dim).
        norm: f32,
        /// The scale of logits, base 2.
        scale: f32,
        /// The scale of logits, base 2, times RoPE's attention factor: products of queries and means are multiplied by
        /// it.
        mean_scale: f32,
    }
}

params! {
    /// The parameters of `attend_mma`, `attend_vec` and `prefill`.
    AttendParams = "AttendParams" {
        /// Column octets of a tile.
        octets: u32,
        /// Partitions for which there are partial states.
        partitions: u32,
        /// A row sees at most so many positions, itself included.
        window: u32,
        /// The scale of logits, base 2.
        scale: f32,
        /// The partition of the grid's first threadgroups.
        first: u32,
        /// Pair groups: 8 high-frequency pairs each.
        pair_groups: u32,
        /// f32 values of a partition in the buffer of mean corrections.
        correction_stride: u32,
    }
}

params! {
    /// The parameters of `reduce`.
    ReduceParams = "ReduceParams" {
        /// How many (row, query head) there are.
        items: u32,
        /// Partitions for which there are partial states.
        partitions: u32,
        /// A row sees at most so many positions, itself included.
        window: u32,
        /// Whether one simdgroup merges a (row, query head) alone, in place of the whole threadgroup.
        one_simdgroup_per_item: u32,
        /// 1 / sqrt(head_dim).
        norm: f32,
    }
}

params! {
    /// The parameters of `copy_blocks`.
    CopyParams = "CopyParams" {
        /// 16-byte words of a block.
        words: u32,
    }
}

params! {
    /// A tile as kernels read it.
    TileParams = "Tile" {
        /// The first row, counted in the batch.
        row: u32,
        /// How many rows there are.
        rows: u32,
        /// Where the sequence's blocks start in the list of all sequences' blocks.
        table: u32,
        /// The first row's position in its sequence.
        position: u32,
        /// The first position that some row sees.
        first: u32,
        /// A tile is read as three pairs of words.
        unused: u32,
    }
}

params! {
    /// The parameters of `rms_norm` and `add_rms_norm`.
    NormParams = "NormParams" {
        /// Elements of a row.
        width: u32,
        /// The number that is added to the mean square.
        eps: f32,
    }
}

params! {
    /// The parameters of `gate_mul`.
    GateParams = "GateParams" {
        /// Elements.
        count: u32,
        /// Whether x is multiplied by the SiLU of the gate, or else by its sigmoid.
        silu: u32,
        /// Elements of x that an element of the gate meets.
        span: u32,
    }
}

params! {
    /// The parameters of `gather_rows`.
    RowsParams = "RowsParams" {
        /// Elements of a row.
        width: u32,
    }
}

params! {
    /// The parameters of `top_slices` and `top_rows`.
    TopParams = "TopParams" {
        /// Candidates of a row.
        width: u32,
        /// How many are wanted.
        count: u32,
        /// Candidates of a threadgroup.
        slice: u32,
    }
}

params! {
    /// The parameters of `pack_rows`.
    PackParams = "PackParams" {
        /// Rows of x.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// Groups of 32 elements of a row.
        groups: u32,
    }
}

params! {
    /// The parameters of `norm_operand`.
    NormOperandParams = "NormOperandParams" {
        /// Rows of x.
        rows: u32,
        /// Elements of a row.
        width: u32,
        /// Groups of 32 elements of a row.
        groups: u32,
        /// Whether delta is added to x, and the sum kept.
        add: u32,
        /// The number that is added to the mean square.
        eps: f32,
    }
}

params! {
    /// The parameters of `product`.
    ProductParams = "ProductParams" {
        /// Rows of the first weight.
        n0: u32,
        /// Rows of the second weight; 0 where there is none.
        n1: u32,
        /// Rows of the third weight; 0 where there is none.
        n2: u32,
        /// Rows of x.
        rows: u32,
        /// Groups of 32 elements of a row.
        groups: u32,
        /// Bytes of a row of a weight.
        row_bytes: u32,
        /// The binary logarithm of the number of partitions of a row.
        partition_shift: u32,
        /// Bit i: whether weight i has a bias.
        biased: u32,
        /// 0: products with each weight; 1: one product, added to the residual; 2: silu of the product with the first
        /// times the product with the second.
        form: u32,
        /// The factor of bf16 weights, the first's.
        unit0: f32,
        /// That of the second.
        unit1: f32,
        /// That of the third.
        unit2: f32,
        /// Whether the weights are stacks of experts' weights.
        by_expert: u32,
    }
}

params! {
    /// The parameters of `product_f32`.
    ExactParams = "ExactParams" {
        /// Rows of the weight.
        n: u32,
        /// Rows of x.
        rows: u32,
        /// Elements of a row.
        k: u32,
        /// Whether a bias is added.
        biased: u32,
    }
}

params! {
    /// The parameters of `convolve`.
    ConvolveParams = "ConvolveParams" {
        /// Channels of the convolution.
        channels: u32,
        /// Inputs that the state holds.
        kept: u32,
        /// f32 elements of a state slot.
        state_len: u32,
    }
}

params! {
    /// The parameters of `delta_rule`.
    DeltaParams = "DeltaParams" {
        /// Heads of q and k.
        key_heads: u32,
        /// Value heads of a key head.
        group: u32,
        /// By how much the number of a value head grows from a key head to the next.
        key_stride: u32,
        /// By how much it grows within the value heads of a key head.
        value_stride: u32,
        /// Elements of a value head.
        value_dim: u32,
        /// Inputs of the convolution that the state holds.
        kept: u32,
        /// f32 elements of a state slot.
        state_len: u32,
        /// The length of queries.
        length: f32,
        /// The number that is added to the mean square of a head's output.
        eps: f32,
    }
}

params! {
    /// The parameters of `route`.
    RouteParams = "RouteParams" {
        /// Rows of logits.
        rows: u32,
        /// Experts of the layer.
        experts: u32,
        /// Experts of a row.
        choices: u32,
        /// Whether the weights of a row's experts are scaled to a sum of 1.
        normalized: u32,
    }
}

params! {
    /// The parameters of `group_by_expert`.
    GroupParams = "GroupParams" {
        /// Rows of the step.
        rows: u32,
        /// Experts of a row.
        choices: u32,
        /// Rows whose choices are in threadgroup memory at once.
        staged: u32,
        /// The binary logarithm of the places of a tile.
        tile_shift: u32,
        /// Tiles that there is room for.
        tiles: u32,
    }
}

params! {
    /// The parameters of `pack_routed`.
    PackRoutedParams = "PackRoutedParams" {
        /// Elements of a row.
        width: u32,
        /// Groups of 32 elements of a row.
        groups: u32,
        /// The binary logarithm of the octets of a tile.
        octet_shift: u32,
        /// Whether a place has the row of x that is routed there, else the row of x with its number.
        gathered: u32,
    }
}

params! {
    /// The parameters of `sum_experts`.
    SumExpertsParams = "SumExpertsParams" {
        /// Elements of a row.
        width: u32,
        /// Experts of a row.
        choices: u32,
    }
}
