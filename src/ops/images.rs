//! Images in a prompt: from a file, a URL or a field.
//!
//! Not an operator. What a row may reach is decided here, once: paths and URLs that rows give stay under the
//! declared folder and hosts.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kit::{Check, Kit};
use crate::ops::ask::render;
use crate::ops::text_field::TextField;
use crate::row::{Fields, Reason};
use crate::teacher::image::{Image, ImageLimits};
use crate::template::Template;

/// An image that goes with the prompt: exactly one of `file`, `url`, `field`. PNG, JPEG, GIF or WebP.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "image", deny_unknown_fields)]
pub struct ImageFile {
    /// The path of the image: a template. Relative to the pipeline file, or to `root`.
    pub file: Option<String>,
    /// The folder that `file` is in; needed where the path comes from rows, which cannot leave it then.
    pub root: Option<String>,
    /// The URL of the image: a template. The teacher's provider fetches it.
    pub url: Option<String>,
    /// The hosts that `url` may be at; needed where the URL comes from rows.
    pub hosts: Option<Vec<String>>,
    /// A field that holds the image: base64 or a data URL, as which the bytes of a Parquet column come.
    pub field: Option<String>,
}

/// Checks the `images` of a config.
pub fn check_images(check: &mut Check<'_>, images: &[ImageFile]) {
    for (index, image) in images.iter().enumerate() {
        let at = |key: &str| format!("images.{index}.{key}");
        let given = [&image.file, &image.url, &image.field].into_iter().flatten().count();
        if given != 1 {
            let message = "an image comes from exactly one of `file`, `url` and `field`";
            check.problem(&format!("images.{index}"), message);
        }
        if let Some(path) = &image.file {
            check_file(check, &at, path, image.root.as_deref());
        } else if image.root.is_some() {
            check.problem(&at("root"), "`root` goes with `file`");
        }
        if let Some(url) = &image.url {
            check_url(check, &at, url, image.hosts.as_deref());
        } else if image.hosts.is_some() {
            check.problem(&at("hosts"), "`hosts` goes with `url`");
        }
        if let Some(field) = &image.field {
            TextField::check(check, &at("field"), field);
        }
    }
}

fn check_file(check: &mut Check<'_>, at: &dyn Fn(&str) -> String, path: &str, root: Option<&str>) {
    let Some(template) = check.template(&at("file"), path) else { return };
    match root {
        Some(root) if !check.base.join(root).is_dir() => {
            check.problem(&at("root"), format!("there is no folder `{root}`")).hint =
                Some("paths are relative to the pipeline file".to_owned());
        }
        None if !template.needs().is_empty() => {
            check.problem(&at("file"), "a path that comes from rows needs a `root`").hint =
                Some("`root: pictures` keeps it inside of that folder".to_owned());
        }
        None => drop(check.file(&at("file"), path)),
        Some(_) => {}
    }
}

fn check_url(check: &mut Check<'_>, at: &dyn Fn(&str) -> String, url: &str, hosts: Option<&[String]>) {
    let Some(template) = check.template(&at("url"), url) else { return };
    if template.needs().is_empty() {
        if let Err(why) = Image::at_url(url, hosts) {
            check.problem(&at("url"), why);
        }
    } else if hosts.is_none_or(<[String]>::is_empty) {
        check.problem(&at("url"), "a URL that comes from rows needs `hosts`").hint =
            Some("`hosts: [images.example.com]` are the only ones it may name".to_owned());
    }
}

/// The images of a step's prompt.
#[derive(Default)]
pub struct Images(Vec<Source>);

enum Source {
    File { path: Template, root: PathBuf, bounded: bool },
    Url { url: Template, hosts: Option<Vec<String>> },
    Field(TextField),
}

impl Images {
    pub fn build(files: &[ImageFile], kit: &Kit) -> anyhow::Result<Images> {
        let one = |image: &ImageFile| {
            Ok(match (&image.file, &image.url, &image.field) {
                (Some(path), _, _) => Source::File {
                    path: kit.template(path)?,
                    root: image.root.as_ref().map_or_else(|| kit.base.clone(), |root| kit.base.join(root)),
                    bounded: image.root.is_some(),
                },
                (_, Some(url), _) => Source::Url { url: kit.template(url)?, hosts: image.hosts.clone() },
                (_, _, Some(field)) => Source::Field(TextField::new(field)),
                _ => anyhow::bail!("an image comes from `file`, `url` or `field`"),
            })
        };
        Ok(Images(files.iter().map(one).collect::<anyhow::Result<_>>()?))
    }

    /// The images for a row. Files are read off the runtime's threads.
    pub async fn of(&self, fields: &Fields, limits: ImageLimits) -> Result<Vec<Image>, Reason> {
        let mut images = Vec::with_capacity(self.0.len());
        for source in &self.0 {
            images.push(match source {
                Source::File { path, root, bounded } => {
                    let path = render(path, fields)?;
                    let (root, bounded, wanted) = (root.clone(), *bounded, path.clone());
                    let read = move || read_image(&root, bounded, &wanted, limits);
                    let read = tokio::task::spawn_blocking(read).await;
                    read.unwrap_or_else(|error| Err(error.to_string())).map_err(|why| bad(&path, &why))?
                }
                Source::Url { url, hosts } => {
                    let url = render(url, fields)?;
                    Image::at_url(&url, hosts.as_deref()).map_err(|why| bad(&url, &why))?
                }
                Source::Field(field) => Image::of_text(field.of(fields)?, limits)
                    .map_err(|why| bad(&field.path().to_string(), &why))?,
            });
        }
        Ok(images)
    }
}

fn bad(image: &str, why: &str) -> Reason {
    Reason::new("bad_image", json!({"image": image, "error": why}))
}

/// Reads an image below a folder; links are followed first, so that none leads out of it.
fn read_image(root: &Path, bounded: bool, path: &str, limits: ImageLimits) -> Result<Image, String> {
    let unreadable = |error: io::Error| format!("the file cannot be read: {error}");
    let full = root.join(path).canonicalize().map_err(unreadable)?;
    if bounded && !full.starts_with(root.canonicalize().map_err(unreadable)?) {
        return Err("the path leads out of `root`".to_owned());
    }
    if !full.is_file() {
        return Err("this is no file".to_owned());
    }
    let most = (limits.base64_max / 4 * 3) as u64;
    let mut bytes = Vec::new();
    File::open(full).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    Image::of_bytes(&bytes, limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;

    const LIMITS: ImageLimits = ImageLimits { base64_max: 1000, tokens_max: 1 };

    #[test]
    fn paths_of_rows_stay_inside() {
        let fixture = fixture::open();
        let folder = fixture.folder.path();
        std::fs::create_dir_all(folder.join("in/deep")).unwrap();
        std::fs::write(folder.join("secret.gif"), "GIF89a").unwrap();
        std::fs::write(folder.join("in/a.gif"), "GIF89a").unwrap();
        std::fs::write(folder.join("in/b.txt"), "text").unwrap();
        std::os::unix::fs::symlink("../secret.gif", folder.join("in/link.gif")).unwrap();
        std::os::unix::fs::symlink("a.gif", folder.join("in/near.gif")).unwrap();
        let check = |path: &str, expected: Result<(), &str>| {
            let read = read_image(&folder.join("in"), true, path, LIMITS);
            match (read, expected) {
                (Ok(_), Ok(())) => {}
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{path}: {why}"),
                (found, _) => panic!("{path}: {found:?}"),
            }
        };
        check("a.gif", Ok(()));
        check("deep/../a.gif", Ok(()));
        check("near.gif", Ok(()));
        check("link.gif", Err("out of `root`"));
        check("../secret.gif", Err("out of `root`"));
        check("/etc/hostname", Err("out of `root`"));
        check("none.gif", Err("cannot be read"));
        check("deep", Err("no file"));
        check("b.txt", Err("no PNG"));
    }

    #[test]
    fn what_rows_give_must_be_bounded() {
        let check = |image: serde_json::Value, expected: &str| {
            let config = json!({"teacher": "t", "prompt": "p", "into": "x", "images": [image]});
            let columns = json!({"path": "string", "n": "integer"});
            let found = fixture::checked(json!({"generate": config}), &columns).unwrap_err();
            let found = found.strip_prefix("generate.teacher: there is no teacher `t`").unwrap();
            assert_eq!(found.trim_start_matches("; "), expected);
        };
        check(json!({"field": "path"}), "");
        check(json!({"url": "https://a.org/x.png"}), "");
        check(json!({"url": "https://a.org/{{ path }}", "hosts": ["a.org"]}), "");
        check(
            json!({"file": "{{ path }}"}),
            "generate.images[0].file: a path that comes from rows needs a `root`",
        );
        check(
            json!({"url": "{{ path }}"}),
            "generate.images[0].url: a URL that comes from rows needs `hosts`",
        );
        check(
            json!({"url": "ftp://a.org"}),
            "generate.images[0].url: a URL of `ftp` is not fetched; https is",
        );
        check(json!({"file": "none.png"}), "generate.images[0].file: there is no file `none.png`");
        check(
            json!({"file": "{{ path }}", "root": "none"}),
            "generate.images[0].root: there is no folder `none`",
        );
        check(json!({"field": "n"}), "generate.images[0].field: `n` is integer, not text");
        check(json!({}), "generate.images[0]: an image comes from exactly one of `file`, `url` and `field`");
    }
}
