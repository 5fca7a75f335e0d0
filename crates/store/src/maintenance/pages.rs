//! Whole tables, a page at a time.

use std::marker::PhantomData;

use crate::{
    Error,
    backend::{KeyRange, RawRead, Row, ScanDirection},
    codec::{KeyPart, Value},
    tables::{Table, TableId},
};

/// Rows held in memory at a time. A row may be large (65 KiB events), so few.
pub const PAGE_ROWS: usize = 256;

/// A walk over the raw rows of one table, in key order.
pub struct Pages {
    table: TableId,
    next: Option<Vec<u8>>,
}

impl Pages {
    pub fn of(table: TableId) -> Self {
        Self { table, next: Some(Vec::new()) }
    }

    /// The next rows; `None` after the last.
    pub async fn next(&mut self, read: &dyn RawRead) -> Result<Option<Vec<Row>>, Error> {
        let Some(start) = self.next.take() else { return Ok(None) };
        let range = KeyRange { start, end: None };
        let rows = read.scan(self.table, range, ScanDirection::Forward, PAGE_ROWS).await?;
        if rows.len() == PAGE_ROWS {
            self.next = rows.last().map(|(key, _)| [key, &[0][..]].concat());
        }
        Ok((!rows.is_empty()).then_some(rows))
    }
}

/// The same with types. Rows that do not decode are left out; the check of all rows has found them.
pub struct TypedPages<K, V> {
    pages: Pages,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyPart, V: Value> TypedPages<K, V> {
    pub fn of(table: &Table<K, V>) -> Self {
        Self { pages: Pages::of(table.id), types: PhantomData }
    }

    pub async fn next(&mut self, read: &dyn RawRead) -> Result<Option<Vec<(K, V)>>, Error> {
        let rows = self.pages.next(read).await?;
        Ok(rows.map(|rows| rows.iter().filter_map(decode).collect()))
    }
}

fn decode<K: KeyPart, V: Value>((key, value): &Row) -> Option<(K, V)> {
    Some((K::decode(&mut &key[..]).ok()?, V::decode(value).ok()?))
}
