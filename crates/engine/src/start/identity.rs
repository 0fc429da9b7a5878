//! The identity of a cache: everything that decides a stored bit beside the tokens.
use attention::Centring;
use kv::CacheIdentity;
use std::fmt::Debug;

/// Change it with whatever changes stored bits and is not a field below: order of summation, codecs, page order.
const VERSION: &str = "2";

/// Names the version of what decides stored bits in this program.
pub(super) fn version() -> String {
    format!("{VERSION} {}", env!("CARGO_PKG_VERSION"))
}

/// What decides the bits of a model's cache.
pub(super) struct IdentityFields<'a> {
    /// Names the weights.
    pub fingerprint: &'a str,
    /// The model's configuration and geometry, RoPE's frequencies included.
    pub model: &'a dyn Debug,
    /// Formats of K and V, block size and layers.
    pub layout: &'a dyn Debug,
    /// What keys go through before they are stored.
    pub centring: &'a Centring,
    /// The backend's page order.
    pub page_order: &'a str,
    /// What else decides the order of sums.
    pub kernels: &'a str,
}

impl IdentityFields<'_> {
    /// The hash of all fields, of this program's version and of the processor's instructions, which may change the
    /// order in which products are summed.
    pub fn identity(&self) -> CacheIdentity {
        let text = |value: &dyn Debug| format!("{value:?}");
        let processor = format!("{} {:?}", std::env::consts::ARCH, matmul::Isa::best());
        let fields = [
            ("version", version()),
            ("processor", processor),
            ("weights", self.fingerprint.to_owned()),
            ("model", text(self.model)),
            ("layout", text(self.layout)),
            ("centring", text(self.centring)),
            ("page order", self.page_order.to_owned()),
            ("kernels", self.kernels.to_owned()),
        ];
        CacheIdentity::new(fields.iter().map(|(name, value)| (*name, value.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attention::{KeyCentring, KeyConstants, LayerGeometry, ModelGeometry};

    fn identity(constants: &KeyConstants) -> CacheIdentity {
        let layer =
            LayerGeometry { num_heads: 1, kv_heads: 1, head_dim: 64, scale: 1.0, sliding_window: None, rope: None };
        let geometry = ModelGeometry { layers: vec![layer] };
        let centring = Centring::new(&geometry, constants, |_| KeyCentring::Approximated).unwrap();
        let (model, layout) = (&"model", &"layout");
        let (page_order, kernels) = ("order", "kernels");
        IdentityFields { fingerprint: "weights", model, layout, centring: &centring, page_order, kernels }.identity()
    }

    /// Codes that were made with other constants are noise.
    #[test]
    fn every_constant_of_the_keys_is_part_of_the_identity() {
        let zeros = vec![vec![0.0; 64]];
        let of = |means: f32, first_means: f32, scales: f32| {
            let one = |value| {
                let mut list = zeros.clone();
                list[0][63] = value;
                list
            };
            let mut scales = one(scales);
            scales[0][..63].fill(1.0);
            KeyConstants { means: one(means), first_means: one(first_means), scales }
        };
        let known = identity(&of(0.0, 0.0, 1.0));
        assert!(known == identity(&of(0.0, 0.0, 1.0)));
        for other in [of(1e-6, 0.0, 1.0), of(0.0, 1e-6, 1.0), of(0.0, 0.0, 1.000_001)] {
            assert!(known != identity(&other), "{other:?}");
        }
    }
}
