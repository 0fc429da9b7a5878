//! Tests of the disk cache as its users see it, within one process.
mod basic;
mod budget;
mod damage;
#[path = "../../tests/helpers/mod.rs"]
mod helpers;
mod limit;
mod model;
mod vanished;

use crate::options::Tuning;
use crate::{BlockKey, DiskCache, DiskOptions, DiskValueKind, Offered, OfferedValue};
use helpers::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
