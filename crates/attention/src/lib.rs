//! The attention boundary: batch layout, backends and their conformance suite.
