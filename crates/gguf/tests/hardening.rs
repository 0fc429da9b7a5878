//! Files that lie: an error that names what is wrong, never a panic or memory for what is not there.
#![allow(clippy::unwrap_used)] // helpers of tests
use gguf::{Gguf, GgufError, TensorType};
use proptest::prelude::*;

/// Writes a file piece by piece.
#[derive(Clone)]
struct File(Vec<u8>);

impl File {
    fn new(tensors: u64, values: u64) -> Self {
        File([&b"GGUF"[..], &3u32.to_le_bytes(), &tensors.to_le_bytes(), &values.to_le_bytes()].concat())
    }

    fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u64(mut self, n: u64) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn string(mut self, s: &str) -> Self {
        self.0.extend((s.len() as u64).to_le_bytes());
        self.0.extend(s.as_bytes());
        self
    }

    fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let head = self.string(name).u32(dims.len() as u32);
        dims.iter().fold(head, |file, n| file.u64(*n)).u32(kind).u64(offset)
    }

    /// Aligned, with `n` bytes of data.
    fn data(mut self, n: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + n, 7);
        self
    }
}

/// Two values and two tensors.
fn good() -> File {
    File::new(2, 3)
        .string("general.architecture")
        .u32(8)
        .string("llama")
        .string("list")
        .u32(9)
        .u32(8)
        .u64(2)
        .string("a")
        .string("bc")
        .string("number")
        .u32(4)
        .u32(5)
        .tensor("x", &[64, 2], 8, 0)
        .tensor("y", &[3], 0, 160)
        .data(172)
}

fn error(file: &File) -> String {
    Gguf::parse(&file.0).unwrap_err().to_string()
}

#[test]
fn a_good_file_is_read() {
    let file = good();
    let gguf = Gguf::parse(&file.0).unwrap();
    assert_eq!(gguf.metadata.string("general.architecture").unwrap(), "llama");
    assert_eq!(gguf.metadata.array("list").unwrap().strings().unwrap(), ["a", "bc"]);
    assert_eq!(gguf.metadata.size("number").unwrap(), 5);
    let x = &gguf.tensors["x"];
    assert_eq!((&x.shape[..], x.kind, x.range.len()), (&[2, 64][..], TensorType::of(8).unwrap(), 2 * 2 * 34));
    assert_eq!(gguf.tensors["y"].range.start - x.range.start, 160);
    assert_eq!(gguf.tensors["y"].range.end, file.0.len());
}

#[test]
fn what_is_wrong_is_named() {
    let start = |file: File, what: &[&str]| {
        let message = error(&file);
        assert!(what.iter().all(|w| message.contains(w)), "{message}");
    };
    start(File(b"GGML....".to_vec()), &["not a GGUF file"]);
    start(File([&b"GGUF"[..], &1u32.to_le_bytes()].concat()), &["version 1"]);
    start(File([&b"GGUF"[..], &3u32.to_be_bytes()].concat()), &["version", "little-endian"]);
    start(File::new(u64::MAX, 0), &["number of tensors", &u64::MAX.to_string()]);
    start(File::new(0, 1).u64(1 << 40), &["metadata key", &(1u64 << 40).to_string()]);
    start(File::new(0, 1).string("k").u32(8).u64(u64::MAX), &["metadata k", "needed"]);
    start(File::new(0, 1).string("k").u32(9).u32(6).u64(u64::MAX / 2), &["metadata k"]);
    start(File::new(0, 1).string("k").u32(9).u32(8).u64(1 << 60), &["metadata k"]);
    start(File::new(0, 1).string("k").u32(9).u32(9).u64(1), &["metadata k", "array of arrays"]);
    start(File::new(0, 1).string("k").u32(77), &["metadata k", "77"]);
    start(File::new(1, 0).tensor("x", &[32], 99, 0).data(64), &["tensor x", "type 99"]);
    start(File::new(1, 0).tensor("x", &[33], 8, 0).data(64), &["tensor x", "33"]);
    start(File::new(1, 0).tensor("x", &[32, 0], 8, 0).data(64), &["tensor x", "dimension of 0"]);
    start(File::new(1, 0).tensor("x", &[1; 5], 0, 0).data(64), &["tensor x", "5 dimensions"]);
    start(File::new(1, 0).tensor("x", &[1 << 40, 1 << 40], 0, 0).data(64), &["tensor x", "larger than any memory"]);
    start(File::new(1, 0).tensor("x", &[32], 8, 1 << 50).data(64), &["tensor x", "past the file"]);
    start(File::new(1, 0).tensor("x", &[32], 8, u64::MAX - 31).data(64), &["tensor x", "past the file"]);
    start(File::new(1, 0).tensor("x", &[64], 8, 0).data(64), &["tensor x", "past the file"]);
    start(File::new(1, 0).tensor("x", &[32], 8, 8).data(64), &["tensor x", "alignment"]);
    start(File::new(2, 0).tensor("x", &[1], 0, 0).tensor("x", &[1], 0, 0).data(64), &["tensor x", "twice"]);
}

#[test]
fn values_of_another_type_are_errors() {
    let file = good();
    let metadata = Gguf::parse(&file.0).unwrap().metadata;
    assert_eq!(metadata.size("nothing").unwrap_err(), GgufError::Missing { key: "nothing".into() });
    let message = metadata.size("general.architecture").unwrap_err().to_string();
    assert!(message.contains("general.architecture") && message.contains("llama"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(testkit::cases(256)))]

    #[test]
    fn every_prefix_of_a_file_is_an_error(cut in 0usize..) {
        let file = good();
        prop_assert!(Gguf::parse(&file.0[..cut % file.0.len()]).is_err());
    }

    /// Whatever bytes are changed, reading ends with an error or with tensors that lie in the file.
    #[test]
    fn broken_bytes_do_not_break_the_reader(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut file = good().0;
        for (at, byte) in &changes {
            let len = file.len();
            file[at.index(len)] = *byte;
        }
        if let Ok(gguf) = Gguf::parse(&file) {
            for (name, tensor) in &gguf.tensors {
                prop_assert!(tensor.range.end <= file.len(), "{name}");
            }
            let arrays = ["list"].iter().filter_map(|key| gguf.metadata.array(key).ok());
            for array in arrays {
                prop_assert_eq!(array.values().count(), array.len());
            }
        }
    }

    #[test]
    fn noise_behind_a_magic_is_no_file(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Gguf::parse(&[&b"GGUF"[..], &3u32.to_le_bytes(), &noise].concat());
    }
}
