//! Vectors of texts, made by a sentence model in an ONNX file (such as all-MiniLM-L6-v2, also quantised).
//!
//! A text is cut into tokens, the tokens into windows of the model's length; each window is run, its tokens'
//! vectors are averaged, and so are the windows' (each weighs as many tokens as it has); the sum is made one
//! long. Each window is run by itself: a quantised model rounds by what it is given at once, so texts run
//! together would change each other's vectors.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use rten::{Model, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::Layout;
use rten_text::TokenId;
use serde_json::Value as Json;

use crate::model::tokens::Tokens;

/// Most tokens of a window where no file says it: what all-MiniLM-L6-v2 was trained for.
const WINDOW: usize = 256;

/// Most tokens of a window, whatever a file says: time grows with their square.
const WINDOW_MAX: usize = 512;

/// Most windows of one text. Of a longer one, as many are taken as evenly as can be.
const WINDOWS_MAX: usize = 8;

/// Most bytes of a text that are looked at, so that a long one takes no longer: about 60 windows of English.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// A sentence model and its tokenizer.
pub struct Embedder {
    model: Model,
    tokens: Tokens,
    inputs: Vec<(NodeId, Input)>,
    output: NodeId,
    /// Tokens of a window, the special ones included.
    window: usize,
    dimensions: usize,
    /// Threads that run no window now; there are never more than callers at one time.
    idle: Mutex<Vec<Arc<ThreadPool>>>,
}

/// What a model wants to know of each token.
#[derive(Clone, Copy)]
enum Input {
    Ids,
    /// 1 for each token: nothing is padded.
    Mask,
    /// 0 for each token: there is one sentence.
    Types,
    /// 0, 1, 2, …
    Positions,
}

impl Input {
    fn named(name: &str) -> Option<Input> {
        match name {
            "input_ids" => Some(Input::Ids),
            "attention_mask" => Some(Input::Mask),
            "token_type_ids" => Some(Input::Types),
            "position_ids" => Some(Input::Positions),
            _ => None,
        }
    }

    fn of(self, tokens: &[TokenId]) -> Vec<i32> {
        match self {
            Input::Ids => tokens.iter().map(|id| *id as i32).collect(),
            Input::Mask => vec![1; tokens.len()],
            Input::Types => vec![0; tokens.len()],
            Input::Positions => (0..tokens.len() as i32).collect(),
        }
    }
}

impl Embedder {
    /// Opens an ONNX model and its `tokenizer.json`, by default the one beside the model. How long a window
    /// is, `sentence_bert_config.json` beside the tokenizer says, else the tokenizer's truncation, else it is
    /// 256 tokens.
    pub fn open(model: &Path, tokenizer: Option<&Path>) -> anyhow::Result<Embedder> {
        let beside = model.with_file_name("tokenizer.json");
        let tokenizer = tokenizer.unwrap_or(&beside);
        let text = std::fs::read_to_string(tokenizer)
            .with_context(|| format!("cannot read the model's tokenizer `{}`", tokenizer.display()))?;
        let window = window(tokenizer, &text);
        let tokens = Tokens::start(text, window)
            .with_context(|| format!("cannot use the tokenizer `{}`", tokenizer.display()))?;
        let opened = Model::load_file(model)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("cannot load the model `{}`", model.display()))?;
        let (inputs, output) = ends(&opened)
            .with_context(|| format!("`{}` is no sentence model that textmill can run", model.display()))?;
        let idle = Mutex::default();
        let mut embedder = Embedder { model: opened, tokens, inputs, output, window, dimensions: 0, idle };
        let vector = embedder
            .vector("a first text")
            .with_context(|| format!("a first run of the model `{}` failed", model.display()))?;
        embedder.dimensions = vector.len();
        Ok(embedder)
    }

    /// How many numbers each vector has.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Most tokens that are run at once; a longer text is several windows.
    pub fn window(&self) -> usize {
        self.window
    }

    /// The vector of each text, one long. Several texts are embedded on all cores, one on the caller's.
    /// A text without any token (an empty one) has the vector that the model gives to nothing.
    pub fn embed(&self, texts: &[&str]) -> anyhow::Result<Vec<Vec<f32>>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(texts.len());
        if threads < 2 {
            return texts.iter().map(|text| self.vector(text)).collect();
        }
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(text) = texts.get(index) else { return done };
                done.push((index, self.vector(text)));
            }
        };
        let mut done = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let mut done = Vec::with_capacity(texts.len());
            for worker in workers {
                done.extend(worker.join().map_err(|_| anyhow::anyhow!("the model panicked"))?);
            }
            anyhow::Ok(done)
        })?;
        done.sort_unstable_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, vector)| vector).collect()
    }

    fn vector(&self, text: &str) -> anyhow::Result<Vec<f32>> {
        let pool = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pool = pool.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(1)));
        let found = self.mean_of_windows(text, &pool);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
        found
    }

    fn mean_of_windows(&self, text: &str, pool: &Arc<ThreadPool>) -> anyhow::Result<Vec<f32>> {
        let mut sum = Vec::new();
        for window in self.windows(text)? {
            let vector = self.run(&window, pool)?;
            sum.resize(vector.len(), 0.0);
            for (total, value) in sum.iter_mut().zip(&vector) {
                *total += value * window.len() as f32;
            }
        }
        let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
        ensure!(length.is_finite() && length > 0.0, "the model gives a text no direction");
        sum.iter_mut().for_each(|value| *value /= length);
        Ok(sum)
    }

    /// The tokens of each window that is run.
    fn windows(&self, text: &str) -> anyhow::Result<Vec<Vec<TokenId>>> {
        let mut windows = self.tokens.windows(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)])?;
        if windows.len() > WINDOWS_MAX {
            let last = windows.len() - 1;
            windows = (0..WINDOWS_MAX)
                .map(|index| std::mem::take(&mut windows[index * last / (WINDOWS_MAX - 1)]))
                .collect();
        }
        Ok(windows)
    }

    /// The mean of the vectors of a window's tokens, or the vector of the whole where the model makes one.
    fn run(&self, tokens: &[TokenId], pool: &Arc<ThreadPool>) -> anyhow::Result<Vec<f32>> {
        let mut inputs: Vec<(NodeId, ValueOrView<'_>)> = Vec::with_capacity(self.inputs.len());
        for (node, input) in &self.inputs {
            let value = Value::from_shape([1, tokens.len()], input.of(tokens))?;
            inputs.push((*node, value.into()));
        }
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(pool)));
        let found = self.model.run(inputs, &[self.output], Some(options));
        let found = found.map_err(|error| anyhow::anyhow!("the model fails: {error}"))?;
        let Some(found) = found.into_iter().next() else { bail!("the model gives nothing") };
        let shape: Vec<usize> = found.shape().to_vec();
        match shape[..] {
            [1, rows, width] if rows > 0 => {
                let (_, values) = found.into_shape_vec::<f32, 3>()?;
                let mut mean = vec![0.0; width];
                for row in values.chunks_exact(width.max(1)) {
                    for (total, value) in mean.iter_mut().zip(row) {
                        *total += value / rows as f32;
                    }
                }
                Ok(mean)
            }
            [1, _] => Ok(found.into_shape_vec::<f32, 2>()?.1),
            _ => bail!("the model gives values of the shape {shape:?}, not one vector for each token"),
        }
    }
}

/// How many tokens a window has.
fn window(tokenizer: &Path, text: &str) -> usize {
    let config = std::fs::read_to_string(tokenizer.with_file_name("sentence_bert_config.json"));
    let config = config.ok().and_then(|text| serde_json::from_str::<Json>(&text).ok());
    let sentence = config.as_ref().and_then(|config| config["max_seq_length"].as_u64());
    let truncation = || {
        let tokenizer: Json = serde_json::from_str(text).ok()?;
        tokenizer["truncation"]["max_length"].as_u64()
    };
    let window = sentence.or_else(truncation).and_then(|tokens| usize::try_from(tokens).ok());
    window.unwrap_or(WINDOW).clamp(8, WINDOW_MAX)
}

/// What goes into the model, and where its vectors come out: `sentence_embedding` where there is one, else
/// the first output.
fn ends(model: &Model) -> anyhow::Result<(Vec<(NodeId, Input)>, NodeId)> {
    let name_of = |node: NodeId| model.node_info(node).and_then(|info| info.name().map(str::to_owned));
    let mut inputs = Vec::new();
    for node in model.input_ids() {
        let name = name_of(*node).unwrap_or_default();
        let Some(input) = Input::named(&name) else {
            bail!(
                "it wants `{name}`, which is none of input_ids, attention_mask, token_type_ids, position_ids"
            );
        };
        inputs.push((*node, input));
    }
    ensure!(inputs.iter().any(|(_, input)| matches!(input, Input::Ids)), "it takes no `input_ids`");
    let outputs = model.output_ids();
    let whole = outputs.iter().find(|node| name_of(**node).as_deref() == Some("sentence_embedding"));
    let Some(output) = whole.or(outputs.first()) else { bail!("it has no output") };
    Ok((inputs, *output))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/models/minilm");

    fn minilm() -> Embedder {
        Embedder::open(&Path::new(FOLDER).join("model.onnx"), None).unwrap()
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// The expected numbers are those of onnxruntime 1.32 behind tokenizers 0.22.
    #[test]
    #[ignore = "needs scripts/minilm.sh"]
    fn minilm_gives_the_vectors_that_onnxruntime_gives() {
        let embedder = minilm();
        assert_eq!((embedder.dimensions(), embedder.window()), (384, 256));
        let texts = [
            "def add(a, b):\n    return a + b",
            "Write a function that adds two numbers.",
            "The cat sits on the mat.",
            "A cat is sitting on a rug.",
            "Stock prices fell sharply on Monday.",
        ];
        let vectors = embedder.embed(&texts).unwrap();
        let check = |a: usize, b: usize, expected: f32| {
            let found = cosine(&vectors[a], &vectors[b]);
            assert!((found - expected).abs() < 1e-3, "{a} and {b}: {found}, not {expected}");
        };
        check(0, 0, 1.0);
        check(0, 1, 0.6620);
        check(2, 3, 0.7667);
        check(2, 4, 0.0322);
        check(3, 4, 0.0668);
        assert!((vectors[2][0] - 0.1309).abs() < 1e-3, "{}", vectors[2][0]);
    }

    #[test]
    #[ignore = "needs scripts/minilm.sh"]
    fn minilm_gives_a_text_the_same_vector_beside_any_other() {
        let embedder = minilm();
        let texts = ["", "\0", "one", "two words and a third", &"many words. ".repeat(40), "é漢字🦀"];
        let together = embedder.embed(&texts).unwrap();
        for (text, vector) in texts.iter().zip(&together) {
            assert_eq!(&embedder.embed(&[text]).unwrap()[0], vector, "{text}");
            assert!((cosine(vector, vector) - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    #[ignore = "needs scripts/minilm.sh"]
    fn minilm_takes_texts_of_any_length() {
        let embedder = minilm();
        let words = "word ".repeat(10_000_000);
        let long = embedder.embed(&[&words, &"a".repeat(50_000_000), &"漢".repeat(1_000_000)]).unwrap();
        assert_eq!(long.len(), 3);
        let short = embedder.embed(&[&"word ".repeat(200)]).unwrap();
        assert!(cosine(&long[0], &short[0]) > 0.95);
    }

    #[test]
    fn what_is_no_model_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.onnx");
        let error = |model: &Path| format!("{:#}", Embedder::open(model, None).err().unwrap());
        assert!(error(&model).starts_with("cannot read the model's tokenizer"), "{}", error(&model));
        std::fs::write(model.with_file_name("tokenizer.json"), "{}").unwrap();
        assert!(error(&model).starts_with("cannot use the tokenizer"), "{}", error(&model));
        let tokenizer = r#"{"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "\u0023#",
            "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}}}"#;
        std::fs::write(model.with_file_name("tokenizer.json"), tokenizer).unwrap();
        assert!(error(&model).starts_with("cannot load the model"), "{}", error(&model));
        std::fs::write(&model, [0; 100]).unwrap();
        assert!(error(&model).contains("model.onnx"), "{}", error(&model));
    }

    #[test]
    fn the_files_beside_say_how_long_a_window_is() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = folder.path().join("tokenizer.json");
        let check = |text: &str, expected: usize| assert_eq!(window(&tokenizer, text), expected);
        check("{}", 256);
        check(r#"{"truncation": null}"#, 256);
        check(r#"{"truncation": {"max_length": 128}}"#, 128);
        check(r#"{"truncation": {"max_length": 100000}}"#, 512);
        std::fs::write(tokenizer.with_file_name("sentence_bert_config.json"), r#"{"max_seq_length": 384}"#)
            .unwrap();
        check(r#"{"truncation": {"max_length": 128}}"#, 384);
    }
}
