//! Runs: one row per execution of a pipeline. What a run did is in its summary, which is the
//! engine's; this file keeps it as JSON and does not look inside.

use std::sync::Arc;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::Store;
use super::error::StoreError;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    Running,
    /// Every row was decided or failed.
    Finished,
    /// A cap, a signal or a fatal error ended it early; it can be resumed.
    Stopped,
    /// It could not do its work at all.
    Failed,
    /// Its process died: found `running` by the next writer.
    Crashed,
}

impl RunStatus {
    const ALL: [RunStatus; 5] =
        [RunStatus::Running, RunStatus::Finished, RunStatus::Stopped, RunStatus::Failed, RunStatus::Crashed];

    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Finished => "finished",
            RunStatus::Stopped => "stopped",
            RunStatus::Failed => "failed",
            RunStatus::Crashed => "crashed",
        }
    }
}

impl ToSql for RunStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.as_str().as_bytes())))
    }
}

impl FromSql for RunStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<RunStatus> {
        let text = value.as_str()?;
        let unknown = || FromSqlError::Other(format!("`{text}` is no status of a run").into());
        RunStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(unknown)
    }
}

/// A run that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    pub id: String,
    pub pipeline: String,
    pub epoch: String,
    pub started_unix_ms: i64,
    pub pid: u32,
    /// Hash of the pipeline file's text.
    pub file_hash: String,
    /// The pipeline file's text.
    pub file: String,
    /// What was asked of the run, as the run keeps it.
    pub options: String,
}

/// A run as the store knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub id: String,
    pub pipeline: String,
    pub epoch: String,
    pub started_unix_ms: i64,
    /// `None` while it runs, and for one that crashed.
    pub ended_unix_ms: Option<i64>,
    pub status: RunStatus,
    pub pid: u32,
    /// `None` until it ends.
    pub summary: Option<Value>,
    pub file_hash: String,
    pub file: String,
    pub options: String,
}

impl Store {
    /// Records that a run begins; resolves when that is on disk. Fails with
    /// [`StoreError::RunExists`] when the id was used before.
    pub async fn begin_run(&self, run: NewRun) -> Result<(), StoreError> {
        let run = Arc::new(run);
        let begun = Arc::clone(&run);
        let inserted = self
            .write(move |desk| {
                desk.connection
                    .prepare_cached(
                        "INSERT INTO runs (id, pipeline, epoch, started_unix_ms, status, pid, file_hash, file,
                                           options, process)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO NOTHING",
                    )?
                    .execute(params![
                        begun.id,
                        begun.pipeline,
                        begun.epoch,
                        begun.started_unix_ms,
                        RunStatus::Running,
                        begun.pid,
                        begun.file_hash,
                        begun.file,
                        begun.options,
                        desk.process
                    ])
            })
            .await?;
        if inserted == 0 { Err(StoreError::RunExists { id: run.id.clone() }) } else { Ok(()) }
    }

    /// Records how a run ended; resolves when that is on disk. Fails with
    /// [`StoreError::NotRunning`] when there is no such run or it has ended already.
    pub async fn end_run(
        &self,
        id: &str,
        status: RunStatus,
        ended_unix_ms: i64,
        summary: &Value,
    ) -> Result<(), StoreError> {
        let run = id.to_owned();
        let summary = summary.to_string();
        let updated = self
            .write(move |desk| {
                desk.connection
                    .prepare_cached(
                        "UPDATE runs SET status = ?2, ended_unix_ms = ?3, summary = ?4
                         WHERE id = ?1 AND status = ?5",
                    )?
                    .execute(params![run, status, ended_unix_ms, summary, RunStatus::Running])
            })
            .await?;
        if updated == 0 { Err(StoreError::NotRunning { id: id.to_owned() }) } else { Ok(()) }
    }

    pub fn run(&self, id: &str) -> Result<Option<Run>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT * FROM runs WHERE id = ?1")?
                .query_row([id], run_from_row)
                .optional()
        })
    }

    /// The newest runs first, of one pipeline or of all, `runs_max` at most.
    pub fn runs(&self, pipeline: Option<&str>, runs_max: u32) -> Result<Vec<Run>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM runs WHERE ?1 IS NULL OR pipeline = ?1
                     ORDER BY started_unix_ms DESC, rowid DESC LIMIT ?2",
                )?
                .query_map(params![pipeline, runs_max], run_from_row)?
                .collect()
        })
    }

    /// The newest run of a pipeline.
    pub fn latest_run(&self, pipeline: &str) -> Result<Option<Run>, StoreError> {
        Ok(self.runs(Some(pipeline), 1)?.pop())
    }
}

/// Marks the runs whose process died, and returns their ids. The dead must have been taken out of the
/// processes before.
pub(super) fn mark_crashed(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "UPDATE runs SET status = ?1 WHERE status = ?2 AND process NOT IN (SELECT id FROM processes)
             RETURNING id",
        )?
        .query_map([RunStatus::Crashed, RunStatus::Running], |row| row.get(0))?
        .collect()
}

fn run_from_row(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: row.get("id")?,
        pipeline: row.get("pipeline")?,
        epoch: row.get("epoch")?,
        started_unix_ms: row.get("started_unix_ms")?,
        ended_unix_ms: row.get("ended_unix_ms")?,
        status: row.get("status")?,
        pid: row.get("pid")?,
        summary: summary(row)?,
        file_hash: row.get("file_hash")?,
        file: row.get("file")?,
        options: row.get("options")?,
    })
}

fn summary(row: &Row<'_>) -> rusqlite::Result<Option<Value>> {
    let wrong = |error| {
        let column = row.as_ref().column_index("summary").unwrap_or_default();
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    };
    let text: Option<String> = row.get("summary")?;
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(wrong)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::super::fixture::{self, Fixture};
    use super::*;

    pub(in super::super) fn new_run(id: &str, pipeline: &str, started_unix_ms: i64) -> NewRun {
        NewRun {
            id: id.into(),
            pipeline: pipeline.into(),
            epoch: "0".into(),
            started_unix_ms,
            pid: 7,
            file_hash: "ab".into(),
            file: "textmill: 1".into(),
            options: "{}".into(),
        }
    }

    #[tokio::test]
    async fn a_run_begins_once_and_ends_once() {
        let Fixture { folder: _folder, store } = fixture::open();
        store.begin_run(new_run("a", "p", 5)).await.unwrap();
        let again = store.begin_run(new_run("a", "q", 6)).await.unwrap_err();
        assert_eq!(again, StoreError::RunExists { id: "a".into() });
        let begun = store.run("a").unwrap().unwrap();
        assert_eq!((begun.status, begun.ended_unix_ms, begun.summary), (RunStatus::Running, None, None));

        let summary = json!({ "kept": 3, "z": "é", "a": null });
        store.end_run("a", RunStatus::Stopped, 9, &summary).await.unwrap();
        let ended = store.run("a").unwrap().unwrap();
        let expected = Run {
            id: "a".into(),
            pipeline: "p".into(),
            epoch: "0".into(),
            started_unix_ms: 5,
            ended_unix_ms: Some(9),
            status: RunStatus::Stopped,
            pid: 7,
            summary: Some(summary.clone()),
            file_hash: "ab".into(),
            file: "textmill: 1".into(),
            options: "{}".into(),
        };
        assert_eq!(ended, expected);
        for id in ["a", "unheard-of"] {
            let error = store.end_run(id, RunStatus::Finished, 9, &summary).await.unwrap_err();
            assert_eq!(error, StoreError::NotRunning { id: id.into() });
        }
    }

    #[tokio::test]
    async fn runs_are_listed_newest_first() {
        let Fixture { folder: _folder, store } = fixture::open();
        for (id, pipeline, started) in [("a", "p", 5), ("b", "q", 9), ("c", "p", 7), ("d", "p", 7)] {
            store.begin_run(new_run(id, pipeline, started)).await.unwrap();
        }
        let check = |pipeline, runs_max, expected: &[&str]| {
            let runs = store.runs(pipeline, runs_max).unwrap();
            let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
            assert_eq!(ids, expected);
        };
        check(None, 9, &["b", "d", "c", "a"]);
        check(None, 2, &["b", "d"]);
        check(Some("p"), 9, &["d", "c", "a"]);
        check(Some("none"), 9, &[]);
        assert_eq!(store.latest_run("p").unwrap().map(|run| run.id), Some("d".to_owned()));
        assert_eq!(store.latest_run("none").unwrap(), None);
    }

    #[tokio::test]
    async fn a_run_found_running_has_crashed() {
        let fixture = fixture::open();
        for id in ["a", "b"] {
            fixture.store.begin_run(new_run(id, "p", 5)).await.unwrap();
        }
        fixture.store.end_run("a", RunStatus::Finished, 9, &json!({})).await.unwrap();
        let fixture = fixture.reopen();
        assert_eq!(fixture.store.recovered().crashed_runs, ["b"]);
        let status = |id| fixture.store.run(id).unwrap().map(|run| run.status);
        assert_eq!((status("a"), status("b")), (Some(RunStatus::Finished), Some(RunStatus::Crashed)));
    }
}
