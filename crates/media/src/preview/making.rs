//! One preview: the page, what is said about it elsewhere, its image.

use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use serde_json::{Map, Value};
use url::Url;

use super::{
    Config, PreviewError, charset,
    graph::Graph,
    html::Page,
    oembed,
    picture::{self, Picture},
    robots::Robots,
};
use crate::{FetchLimits, Media, Page as Answer, PageError, sanitize};

/// All fetches of one preview together.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Of a longer page the beginning is read; this is only what a server may announce.
const ANNOUNCED_SIZE_MAX: u64 = 1024 * 1024 * 1024;
const OEMBED_SIZE_MAX: usize = 256 * 1024;

pub struct Making<'a> {
    pub media: &'a Media,
    pub config: &'a Config,
}

impl Making<'_> {
    /// OpenGraph as JSON.
    pub async fn preview(&self, url: &Url) -> Result<String, PreviewError> {
        let too_slow = || PreviewError::Failed("The page took too long.".to_owned());
        self.media.view.env.timeout(TIMEOUT, Box::pin(self.make(url))).await.ok_or_else(too_slow)?
    }

    async fn make(&self, url: &Url) -> Result<String, PreviewError> {
        if let Some(endpoint) = oembed::endpoint(url)
            && let Some(graph) = self.oembed(&endpoint).await
            && graph.has_title()
        {
            return self.finished(graph).await;
        }
        let answer = self.fetch(url, ANNOUNCED_SIZE_MAX).await?;
        match Kind::of(answer.content_type.as_deref()) {
            Kind::Image if !robots_of(&answer).image => Ok(written(Map::new(), None)),
            Kind::Image => {
                let picture = picture::store(self.media, self.config, answer).await?;
                Ok(written(Map::new(), picture))
            }
            Kind::Html => {
                let graph = self.read_page(answer).await?;
                self.finished(graph).await
            }
            Kind::Other => Ok(written(Map::new(), None)),
        }
    }

    async fn read_page(&self, answer: Answer) -> Result<Graph, PreviewError> {
        let (url, content_type) = (answer.url.clone(), answer.content_type.clone());
        let (at, said) = (url.clone(), answer.robots.clone());
        let bytes = beginning(answer, self.config.page_size_max).await?;
        let read = self.media.view.env.blocking(move || {
            let page = Page::read(&charset::decode(&bytes, content_type.as_deref()));
            let robots = Robots::of(said.iter().map(String::as_str).chain(page.meta("robots")));
            (Graph::of(&page, &at).for_robots(robots), page.oembed.filter(|_| robots.snippet && robots.image))
        });
        let crashed = || PreviewError::Failed("The page could not be read.".to_owned());
        let (graph, oembed) = read.await.ok_or_else(crashed)?;
        let lacks = !graph.has_title() || graph.images.is_empty();
        match oembed.filter(|_| lacks).and_then(|oembed| url.join(&oembed).ok()) {
            Some(endpoint) => Ok(match self.oembed(&endpoint).await {
                Some(over) => oembed::overlay(graph, over),
                None => graph,
            }),
            None => Ok(graph),
        }
    }

    /// Without it, there is still the page.
    async fn oembed(&self, endpoint: &Url) -> Option<Graph> {
        let answer = self.fetch(endpoint, OEMBED_SIZE_MAX as u64).await.ok()?;
        let url = answer.url.clone();
        let bytes = beginning(answer, OEMBED_SIZE_MAX).await.ok()?;
        let text = String::from_utf8(bytes.into()).ok()?;
        self.media.view.env.blocking(move || oembed::read(&text, &url)).await?
    }

    async fn finished(&self, graph: Graph) -> Result<String, PreviewError> {
        let mut picture = None;
        for image in &graph.images {
            picture = match self.fetch(image, self.config.image_size_max).await {
                Ok(answer) if !robots_of(&answer).image => None,
                Ok(answer) => picture::store(self.media, self.config, answer).await?,
                // A page without its picture is better than none.
                Err(_) => None,
            };
            if picture.is_some() {
                break;
            }
        }
        Ok(written(graph.properties, picture))
    }

    async fn fetch(&self, url: &Url, size_max: u64) -> Result<Answer, PreviewError> {
        let refused = || PreviewError::Refused("This server makes no previews of this URL.".to_owned());
        if !self.config.patterns.permit(url) {
            return Err(refused());
        }
        let limits = FetchLimits { size_max, timeout: self.config.timeout };
        let answer = self.media.pages.fetch(url, limits).await.map_err(|error| match error {
            PageError::Refused(reason) => PreviewError::Refused(reason),
            PageError::Failed(reason) => PreviewError::Failed(reason),
        })?;
        // Where redirects lead is as good or bad as what was named.
        if !self.config.patterns.permit(&answer.url) {
            return Err(refused());
        }
        match answer.status {
            200..300 => Ok(answer),
            status => Err(PreviewError::Failed(format!("The page answers with status {status}."))),
        }
    }
}

fn robots_of(answer: &Answer) -> Robots {
    Robots::of(answer.robots.iter().map(String::as_str))
}

enum Kind {
    Html,
    Image,
    Other,
}

impl Kind {
    fn of(content_type: Option<&str>) -> Self {
        let content_type = sanitize::content_type(content_type).to_ascii_lowercase();
        match content_type.split(';').next().unwrap_or_default().trim() {
            "text/html" | "application/xhtml+xml" => Self::Html,
            kind if kind.starts_with("image/") => Self::Image,
            _ => Self::Other,
        }
    }
}

/// At most so much of what comes; a page that breaks off later is as good.
async fn beginning(answer: Answer, size_max: usize) -> Result<BytesMut, PreviewError> {
    let mut body = answer.body;
    let mut read = BytesMut::new();
    while read.len() < size_max {
        match body.next().await {
            Some(Ok(piece)) => read.extend_from_slice(&piece[..piece.len().min(size_max - read.len())]),
            Some(Err(error)) if read.is_empty() => return Err(PreviewError::Failed(error.to_string())),
            Some(Err(_)) | None => break,
        }
    }
    Ok(read)
}

fn written(mut properties: Map<String, Value>, picture: Option<Picture>) -> String {
    match picture {
        Some(picture) => picture.describe(&mut properties),
        None => drop(properties.remove("og:image:alt")),
    }
    Value::Object(properties).to_string()
}
