//! Layer 4: all metadata as two ordered maps, and the commit point of every batch.

pub mod db;
