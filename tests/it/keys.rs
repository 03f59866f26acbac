//! Edits cost only what they change: every field of a request that is flipped is a miss, nothing else is.

use crate::workspace::{FakeTeacher, Workspace};

fn pipeline(url: &str) -> String {
    format!(
        r#"
textmill: 1
name: keys
teachers:
  writer: {{ openai: {{ url: "{url}", model: fake }} }}
source: {{ rows: [{{ topic: a }}, {{ topic: a }}, {{ topic: b }}] }}
steps:
  - generate:
      teacher: writer
      system: You write.
      prompt: "Write about {{{{ topic }}}}."
      into: text
      json: {{ body: string }}
      temperature: 0.5
      max_tokens: 400
      seed: 1
      stop: [END]
      extra: {{ top_p: 0.9 }}
save: {{ parquet: out }}
"#
    )
}

#[test]
fn flipping_any_field_is_a_miss_and_flipping_none_is_a_hit() {
    let teacher = FakeTeacher::start(&["--reply-bytes", "200"]);
    let workspace = Workspace::new();
    workspace.write("p.yaml", &pipeline(&teacher.url));
    let calls = |args: &[&str]| {
        let mut all = vec!["run", "p.yaml", "--json"];
        all.extend(args);
        let accounts = workspace.json(&all, 0);
        accounts["calls"]["text"]["calls"].as_u64().unwrap()
    };
    assert_eq!(calls(&[]), 3, "two rows with the same prompt are two calls");
    assert_eq!(calls(&[]), 0, "nothing flipped: all from the store");
    assert_eq!(calls(&["--set", "steps.0.generate.repair_attempts=3"]), 0, "not in the request");
    let other_url = teacher.url.replace("127.0.0.1", "localhost");
    for set in [
        "steps.0.generate.system=You sing.".to_owned(),
        "steps.0.generate.prompt=Sing about {{ topic }}.".to_owned(),
        "steps.0.generate.temperature=0.6".to_owned(),
        "steps.0.generate.max_tokens=401".to_owned(),
        "steps.0.generate.seed=2".to_owned(),
        "steps.0.generate.stop=[STOP]".to_owned(),
        "steps.0.generate.extra={top_p: 0.8}".to_owned(),
        "steps.0.generate.json={text: string}".to_owned(),
        "teachers.writer.openai.model=other".to_owned(),
        format!("teachers.writer.openai.url={other_url}"),
        "teachers.writer.openai.headers={x-variant: b}".to_owned(),
    ] {
        assert_eq!(calls(&["--set", &set]), 3, "{set}");
        assert_eq!(calls(&["--set", &set]), 0, "{set} again");
    }
    assert_eq!(calls(&["--epoch", "1"]), 3, "another epoch is another drawing");
    assert_eq!(calls(&["--set", "steps.0.generate.samples=2"]), 6, "a sample is a row of its own");
    assert_eq!(calls(&["--set", "steps.0.generate.reuse=request"]), 2, "the same request is shared");
}
