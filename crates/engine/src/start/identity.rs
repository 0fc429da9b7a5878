//! The identity of a cache: everything that decides a stored bit beside the tokens.
use attention::Centring;
use kv::CacheIdentity;
use std::fmt::Debug;

/// Change it with whatever changes stored bits and is not a field below: order of summation, codecs, page order.
const VERSION: &str = "1";

/// What decides the bits of a model's cache.
pub(super) struct IdentityFields<'a> {
    /// Names the weights.
    pub fingerprint: &'a str,
    /// The model's configuration and geometry, RoPE's frequencies included.
    pub model: &'a dyn Debug,
    /// Formats of K and V, block size and layers.
    pub layout: &'a dyn Debug,
    /// What is subtracted from K and V.
    pub centring: &'a Centring,
    /// The backend's page order.
    pub page_order: &'a str,
}

impl IdentityFields<'_> {
    /// The hash of all fields, of this program's version and of the processor's instructions, which may change the
    /// order in which products are summed.
    pub fn identity(&self) -> CacheIdentity {
        let text = |value: &dyn Debug| format!("{value:?}");
        let processor = format!("{} {:?}", std::env::consts::ARCH, matmul::Isa::best());
        let fields = [
            ("version", format!("{VERSION} {}", env!("CARGO_PKG_VERSION"))),
            ("processor", processor),
            ("weights", self.fingerprint.to_owned()),
            ("model", text(self.model)),
            ("layout", text(self.layout)),
            ("centring", text(self.centring)),
            ("page order", self.page_order.to_owned()),
        ];
        CacheIdentity::new(fields.iter().map(|(name, value)| (*name, value.as_bytes())))
    }
}
