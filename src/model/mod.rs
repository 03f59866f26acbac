//! Models that run here: the only place that knows a neural network's file format.
//!
//! [`Embedder`] makes vectors of texts with an ONNX model that the user names. Nothing is downloaded,
//! nothing is asked over a connection, and the same text gets the same vector on the same machine,
//! whatever is embedded beside it.

mod embedder;
mod tokens;

pub use embedder::Embedder;
