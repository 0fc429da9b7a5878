//! A stand-in for the crate `objc2-foundation`.
#![warn(missing_docs)]
#![allow(non_snake_case)] // Apple's names
use objc2::rc::Retained;
use std::ffi::{CString, c_char};
use std::fmt;
use std::path::{Path, PathBuf};

/// A string.
#[derive(Debug)]
pub struct NSString {
    text: String,
    with_end: CString,
}

impl NSString {
    /// A new string. What follows a NUL is left out of [`NSString::UTF8String`].
    #[allow(clippy::should_implement_trait)] // the real crate's name
    pub fn from_str(text: &str) -> Retained<Self> {
        let until_nul = text.split('\0').next().unwrap_or_default();
        let with_end = CString::new(until_nul).unwrap_or_default();
        Retained::of(NSString { text: text.to_owned(), with_end })
    }

    /// The string as C has it, valid as long as the string lives.
    pub fn UTF8String(&self) -> *const c_char {
        self.with_end.as_ptr()
    }
}

impl fmt::Display for NSString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An error with its message.
#[derive(Debug)]
pub struct NSError(String);

impl NSError {
    /// An error with a message. The real crate has no such function.
    pub fn of(message: &str) -> Retained<Self> {
        Retained::of(NSError(message.to_owned()))
    }

    /// The message.
    pub fn localizedDescription(&self) -> Retained<NSString> {
        NSString::from_str(&self.0).autoreleased()
    }
}

impl fmt::Display for NSError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An array of objects.
#[derive(Debug)]
pub struct NSArray<T>(Vec<Retained<T>>);

impl<T> NSArray<T> {
    /// An array of objects. The real crate has no such function.
    pub fn of(objects: Vec<Retained<T>>) -> Retained<Self> {
        Retained::of(NSArray(objects))
    }

    /// The objects.
    pub fn to_vec(&self) -> Vec<Retained<T>> {
        self.0.clone()
    }
}

/// A range of bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NSRange {
    /// The first byte.
    pub location: usize,
    /// How many bytes.
    pub length: usize,
}

impl NSRange {
    /// A range of `length` bytes from `location` on.
    pub fn new(location: usize, length: usize) -> Self {
        NSRange { location, length }
    }
}

/// The address of a file.
#[derive(Debug)]
#[allow(dead_code)] // nothing reads it
pub struct NSURL(PathBuf);

impl NSURL {
    /// A file's address.
    pub fn from_file_path(path: impl AsRef<Path>) -> Option<Retained<Self>> {
        Some(Retained::of(NSURL(path.as_ref().to_owned())))
    }
}
