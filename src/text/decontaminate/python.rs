//! The same function under other names: Python's syntax trees, without names, texts and types, compared by edit
//! distance.
//!
//! A function becomes the kinds of its nodes in the order of the source: `for`, comparison with `<`, call… Names,
//! the values of literals, docstrings, annotations and decorators are left out, operators stay. Two functions
//! match at the rate 1 - d / n for an edit distance d between their sequences, n being the longer one's length
//! (phi-1, arXiv 2306.11644, section 5.2, which prunes at match rates between 0.8 and 0.95).

use std::thread;

use ruff_python_ast::visitor::source_order::{SourceOrderVisitor, TraversalSignal, walk_stmt};
use ruff_python_ast::{AnyNodeRef, Stmt};
use ruff_python_parser::parse_module;

use crate::text::decontaminate::passages::FUNCTION_BYTES_MAX;

/// The stack on which texts are parsed: deep nesting is dropped and walked by recursion.
const STACK_BYTES: usize = 256 << 20;

/// What a function is made of; the same for functions that differ in names only.
pub type Shape = Vec<u16>;

/// The shape of each text that is one or more Python functions; `None` for what is none.
pub fn shapes(texts: &[&str]) -> Vec<Option<Shape>> {
    if texts.is_empty() {
        return Vec::new();
    }
    thread::scope(|scope| {
        let all = || texts.iter().map(|text| shape(text)).collect();
        let parser = thread::Builder::new().name("python".to_owned()).stack_size(STACK_BYTES);
        match parser.spawn_scoped(scope, all).map(thread::ScopedJoinHandle::join) {
            Ok(Ok(shapes)) => shapes,
            // No thread to be had, or the parser's own fault: then nothing is said about the texts.
            Ok(Err(_)) | Err(_) => vec![None; texts.len()],
        }
    })
}

fn shape(text: &str) -> Option<Shape> {
    if text.len() > FUNCTION_BYTES_MAX {
        return None;
    }
    // A method stands indented: the margin of the first line is taken off every line that has it.
    let margin = &text[..text.len() - text.trim_start_matches([' ', '\t']).len()];
    let lines: Vec<&str> = text.lines().map(|line| line.strip_prefix(margin).unwrap_or(line)).collect();
    let module = parse_module(&lines.join("\n")).ok()?.into_syntax();
    let mut walk = Walk::default();
    for statement in module.body.iter().filter(|statement| statement.is_function_def_stmt()) {
        walk.visit_stmt(statement);
    }
    (!walk.shape.is_empty()).then_some(walk.shape)
}

#[derive(Default)]
struct Walk {
    shape: Shape,
}

/// Where a block's statements end; no node's number.
const END: u16 = u16::MAX;

impl<'a> SourceOrderVisitor<'a> for Walk {
    fn enter_node(&mut self, node: AnyNodeRef<'a>) -> TraversalSignal {
        let operator = match node {
            AnyNodeRef::Decorator(_) | AnyNodeRef::Identifier(_) => return TraversalSignal::Skip,
            AnyNodeRef::ExprBinOp(it) => it.op as u16,
            AnyNodeRef::ExprUnaryOp(it) => it.op as u16,
            AnyNodeRef::ExprBoolOp(it) => it.op as u16,
            AnyNodeRef::StmtAugAssign(it) => it.op as u16,
            AnyNodeRef::ExprCompare(it) => it.ops.first().map_or(0, |op| *op as u16),
            _ => 0,
        };
        self.shape.push((node.kind() as u16) << 5 | operator);
        TraversalSignal::Traverse
    }

    fn visit_annotation(&mut self, _: &'a ruff_python_ast::Expr) {}

    fn visit_stmt(&mut self, statement: &'a Stmt) {
        let is_text = |it: &ruff_python_ast::StmtExpr| it.value.is_string_literal_expr();
        if statement.as_expr_stmt().is_some_and(is_text) || statement.is_pass_stmt() {
            return;
        }
        walk_stmt(self, statement);
        if ruff_python_ast::helpers::is_compound_statement(statement) {
            self.shape.push(END);
        }
    }
}

/// Known shapes, with a number each.
#[derive(Default)]
pub struct Shapes {
    known: Vec<(usize, Shape, Counts)>,
}

/// How often each kind comes, folded to 64 places: what two shapes have in common is at most what these have.
type Counts = [u16; 64];

fn counts(shape: &[u16]) -> Counts {
    let mut counts = [0_u16; 64];
    for kind in shape {
        let place = &mut counts[usize::from(kind.wrapping_mul(0x9e35) >> 10)];
        *place = place.saturating_add(1);
    }
    counts
}

impl Shapes {
    pub fn add(&mut self, number: usize, shape: Shape) {
        let counts = counts(&shape);
        self.known.push((number, shape, counts));
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The best match at a rate of at least `rate`: its number and the rate.
    pub fn best(&self, shape: &[u16], rate: f64) -> Option<(usize, f64)> {
        let own = counts(shape);
        let mut best: Option<(usize, f64)> = None;
        for (number, known, counts) in &self.known {
            let longest = known.len().max(shape.len());
            let least = best.map_or(rate, |(_, found)| found);
            let most = ((1.0 - least) * longest as f64 + 1e-9) as usize;
            let common: usize = own.iter().zip(counts).map(|(a, b)| usize::from(*a.min(b))).sum();
            if longest - common > most {
                continue;
            }
            if let Some(distance) = distance(shape, known, most) {
                let found = 1.0 - distance as f64 / longest as f64;
                if best.is_none_or(|(_, held)| found > held) {
                    best = Some((*number, found));
                }
            }
        }
        best
    }
}

/// The edit distance of two sequences if it is at most `most`; cells further off the diagonal are not looked at.
fn distance(a: &[u16], b: &[u16], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let far = most + 1;
    let mut before: Vec<usize> = (0..=b.len()).map(|index| index.min(far)).collect();
    let mut after = vec![far; b.len() + 1];
    for (row, own) in a.iter().enumerate() {
        let (from, to) = ((row + 1).saturating_sub(most).max(1), (row + 1 + most).min(b.len()));
        after[from - 1] = if from == 1 { (row + 1).min(far) } else { far };
        let mut least = after[from - 1];
        for column in from..=to {
            let change = before[column - 1] + usize::from(*own != b[column - 1]);
            let found = change.min(before[column] + 1).min(after[column - 1] + 1).min(far);
            after[column] = found;
            least = least.min(found);
        }
        if to < b.len() {
            after[to + 1] = far;
        }
        if least > most {
            return None;
        }
        std::mem::swap(&mut before, &mut after);
    }
    Some(before[b.len()]).filter(|found| *found <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: &str = "def f(xs: list[int], n) -> bool:\n    \"\"\"Says.\"\"\"\n    for i, x in enumerate(xs):\n        \
                        if x + i < n and i != 3:\n            return True\n    return False\n";

    fn rate(a: &str, b: &str) -> Option<f64> {
        let mut found = shapes(&[a, b]).into_iter();
        let mut known = Shapes::default();
        known.add(0, found.next().unwrap()?);
        known.best(&found.next().unwrap()?, 0.5).map(|(_, rate)| rate)
    }

    #[test]
    fn names_texts_types_and_literals_do_not_count() {
        let renamed =
            LOOP.replace("xs: list[int]", "values").replace("xs)", "values)").replace("Says", "Tells");
        assert_eq!(rate(LOOP, &renamed.replace('3', "77").replace("-> bool", "")), Some(1.0));
        let method = format!("    @staticmethod\n{LOOP}").replace('\n', "\n    ");
        assert_eq!(rate(LOOP, &method), Some(1.0));
        let other = rate(LOOP, &LOOP.replace('<', ">")).unwrap();
        assert!((0.9..1.0).contains(&other), "{other}");
        assert_eq!(rate(LOOP, "def f(x):\n    return x\n"), None);
    }

    #[test]
    fn what_is_no_python_has_no_shape() {
        let none = ["", "x = 1", "def f(:\n  return", "def f(x):\nreturn", "\0", "Define this: def f"];
        assert_eq!(shapes(&none), vec![None; none.len()]);
    }

    #[test]
    fn deep_nesting_is_survived() {
        for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("not ", ""), ("lambda: ", ""), ("{1:", "}")]
        {
            let count = 15_000 / (open.len() + close.len());
            let text = format!("def f(x):\n return {}x{}\n", open.repeat(count), close.repeat(count));
            assert_eq!(shapes(&[&text]).len(), 1);
        }
        let chain = format!("def f(x):\n return x{}\n", "+x".repeat(7_000));
        assert!(shapes(&[&chain])[0].is_some());
        let calls = format!("def f(x):\n return x{}\n", ".x()".repeat(3_000));
        assert!(shapes(&[&calls])[0].is_some());
        let blocks: String = (0..120).map(|depth| format!("{}if x:\n", " ".repeat(depth + 1))).collect();
        let text = format!("def f(x):\n{blocks}{}return x\n", " ".repeat(121));
        assert_eq!(shapes(&[&text]).len(), 1);
    }

    #[test]
    fn distances_are_those_of_the_whole_table() {
        let whole = |a: &[u16], b: &[u16]| distance(a, b, 1_000).unwrap();
        assert_eq!(whole(&[1, 2, 3], &[1, 3]), 1);
        assert_eq!(whole(&[], &[1, 3]), 2);
        assert_eq!(whole(&[5, 1, 2, 3], &[1, 2, 4, 3, 9]), 3);
        assert_eq!(distance(&[5, 1, 2, 3], &[1, 2, 4, 3, 9], 3), Some(3));
        assert_eq!(distance(&[5, 1, 2, 3], &[1, 2, 4, 3, 9], 2), None);
        let a: Vec<u16> = (0..200).map(|i| i * 7 % 11).collect();
        let mut b = a.clone();
        b.remove(50);
        b.insert(120, 99);
        assert_eq!(distance(&a, &b, 2), Some(2));
        assert_eq!(distance(&a, &b, 1), None);
    }
}
