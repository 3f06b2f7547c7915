//! Matrix factorisations in f64 on background threads.

use std::sync::{Arc, Mutex};

use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_linalg::{Error, IncrementalPca, Svd, matrix_from_rows, qr, svd, svd_low_rank, to_row_major};
use napi::Env;
use napi::bindgen_prelude::{Float64ArraySlice, Object};
use napi_derive::napi;

use crate::background;
use crate::error::{Result, to_js_error};
use crate::random::make_stream;

fn wrap_error(what: &str) -> impl Fn(Error) -> engine::Error {
    let what = what.to_owned();
    move |error| {
        let code = if error == Error::NotFinite { Code::NotFinite } else { Code::Internal };
        fail_code(code, format!("{what}: {error}"))
    }
}

/// Returns an error unless there are `rows` × `columns` values.
fn check_matrix(what: &str, values: &[f32], rows: u32, columns: u32) -> Result<(usize, usize)> {
    let (rows, columns) = (rows as usize, columns as usize);
    if values.len() != rows * columns || values.is_empty() {
        let message = format!("{what}: {} values are no matrix of {rows}×{columns}", values.len());
        return Err(to_js_error(fail_code(Code::ShapeMismatch, message)));
    }
    Ok((rows, columns))
}

/// Returns a promise of an object of arrays, or of a `Failure`.
fn run_for_arrays<'env, const N: usize>(
    env: &'env Env,
    name: &'static str,
    names: [&'static str; N],
    work: impl FnOnce() -> engine::Result<[Vec<f64>; N]> + Send + 'static,
) -> Result<Object<'env>> {
    background::run_for_object(env, name, work, move |env, object, made| {
        for (name, values) in names.into_iter().zip(made) {
            object.set(name, Float64ArraySlice::copy_from(env, &values[..])?)?;
        }
        Ok(())
    })
}

fn to_arrays(Svd { u, s, vt }: Svd) -> [Vec<f64>; 3] {
    [to_row_major(u.as_ref()), s, to_row_major(vt.as_ref())]
}

/// The parameters of the random subspace.
#[napi(object)]
pub struct Subspace {
    pub iterations: u32,
    pub seed: f64,
    pub draw: f64,
}

/// Returns the `rank` largest singular values, or as many as there are, in A [rows, columns] ≈ U · diag(s) · Vᵀ:
/// U [rows, k], s [k], Vᵀ [k, columns], stored by rows. With `subspace` the result is approximate.
#[napi(
    catch_unwind,
    ts_return_type = "Promise<{ u: Float64Array, s: Float64Array, vt: Float64Array } | Failure>"
)]
pub fn linalg_svd<'env>(
    env: &'env Env,
    values: &[f32],
    rows: u32,
    columns: u32,
    rank: u32,
    subspace: Option<Subspace>,
) -> Result<Object<'env>> {
    let (rows, columns) = check_matrix("svd", values, rows, columns)?;
    let values = values.to_vec();
    let rank = rank as usize;
    run_for_arrays(env, "svd", ["u", "s", "vt"], move || {
        let failed = wrap_error("svd");
        let a = matrix_from_rows(rows, columns, &values).map_err(&failed)?;
        let found = match subspace {
            None => svd(a.as_ref(), rank),
            Some(Subspace { iterations, seed, draw }) => {
                let normal = |count| make_stream(seed, draw).normal(count, 0.0, 1.0);
                svd_low_rank(a.as_ref(), rank, rank, iterations as usize, normal)
            }
        };
        found.map(to_arrays).map_err(failed)
    })
}

/// Returns the first `rank` columns of Q [rows, k] and rows of R [k, columns] in A = Q·R.
#[napi(catch_unwind, ts_return_type = "Promise<{ q: Float64Array, r: Float64Array } | Failure>")]
pub fn linalg_qr<'env>(
    env: &'env Env,
    values: &[f32],
    rows: u32,
    columns: u32,
    rank: u32,
) -> Result<Object<'env>> {
    let (rows, columns) = check_matrix("qr", values, rows, columns)?;
    let values = values.to_vec();
    run_for_arrays(env, "qr", ["q", "r"], move || {
        let a = matrix_from_rows(rows, columns, &values).map_err(wrap_error("qr"))?;
        let (q, r) = qr(a.as_ref(), rank as usize);
        Ok([to_row_major(q.as_ref()), to_row_major(r.as_ref())])
    })
}

/// Incremental principal component analysis.
#[napi]
pub struct PrincipalComponents {
    features: usize,
    pca: Arc<Mutex<IncrementalPca>>,
}

#[napi]
impl PrincipalComponents {
    /// Keeps the `components` strongest components of rows with `features` values.
    #[napi(catch_unwind, constructor)]
    pub fn new(components: u32, features: u32) -> PrincipalComponents {
        let pca = IncrementalPca::new(components as usize, features as usize);
        PrincipalComponents { features: features as usize, pca: Arc::new(Mutex::new(pca)) }
    }

    /// Adds a batch of rows. Returns the components [k, features], each component's share of the variance, and the
    /// cosine similarity of each component to its predecessor. All three are empty until there are at least as many
    /// rows as components; the similarity is also empty after the first batch.
    #[napi(
        catch_unwind,
        ts_return_type = "Promise<{ components: Float64Array, ratios: Float64Array, singularValues: Float64Array, similarity: Float64Array } | Failure>"
    )]
    pub fn fit<'env>(&self, env: &'env Env, values: &[f32], seed: f64, draw: f64) -> Result<Object<'env>> {
        let rows = (values.len() / self.features) as u32;
        let (rows, features) = check_matrix("principal components", values, rows, self.features as u32)?;
        let (values, pca) = (values.to_vec(), self.pca.clone());
        let names = ["components", "ratios", "singularValues", "similarity"];
        run_for_arrays(env, "components", names, move || {
            let failed = wrap_error("principal components");
            let batch = matrix_from_rows(rows, features, &values).map_err(&failed)?;
            let mut pca = pca.lock().unwrap_or_else(|broken| broken.into_inner());
            pca.fit(batch.as_ref(), |count| make_stream(seed, draw).normal(count, 0.0, 1.0))
                .map_err(failed)?;
            let components = pca.components().map_or(Vec::new(), to_row_major);
            Ok([components, pca.ratios(), pca.singular_values().to_vec(), pca.similarity().to_vec()])
        })
    }
}
