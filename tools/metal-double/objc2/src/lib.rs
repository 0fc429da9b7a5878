//! A stand-in for the crate `objc2` that needs no Objective-C, with the names that Candle and Tallow use.
//!
//! [`double`] has what the real crate has not: how many objects live, and how many were made with no autorelease pool.
#![warn(missing_docs)]

pub mod double;
pub mod rc;
pub mod runtime;

/// Whether the system has an API: the one that is stood in for has every API.
#[macro_export]
macro_rules! available {
    ($($system:ident = $version:literal),+) => {
        true
    };
}

/// The one message that is sent by hand: `architecture`, to learn whether the answer is null. It is the receiver.
#[macro_export]
macro_rules! msg_send {
    [$object:expr, architecture] => {
        $crate::runtime::address($object)
    };
}
