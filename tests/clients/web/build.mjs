// Bundles Element's user interface (matrix-react-sdk) with the shell in `shell.jsx` into one directory of static files:
// the page, its style sheet, its workers, its translations. No code is fetched at run time.
import { build } from "esbuild";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import postcss from "postcss";
import syntax from "postcss-scss";

const require = createRequire(import.meta.url);
const sdk = path.dirname(require.resolve("matrix-react-sdk/package.json"));
const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2] ?? "dist");

/** Paths that the bundler of Element Web resolves in its own ways. */
const resolutions = {
    name: "resolutions",
    setup(bundler) {
        bundler.onResolve({ filter: /^\$webapp\/i18n\/languages\.json$/ }, () => ({
            path: path.join(out, "i18n/languages.json"),
            namespace: "address",
        }));
        bundler.onLoad({ filter: /.*/, namespace: "address" }, () => ({
            contents: `module.exports = "i18n/languages.json"`,
        }));
        bundler.onResolve({ filter: /^\.{1,2}\/.*\.tsx?$/ }, (request) => {
            const compiled = path.resolve(request.resolveDir, request.path.replace(/\.tsx?$/, ".js"));
            return request.resolveDir.startsWith(path.join(sdk, "lib")) ? { path: compiled } : undefined;
        });
        bundler.onResolve({ filter: /\/src\// }, (request) => {
            const file = path.resolve(request.resolveDir, request.path);
            if (!file.startsWith(path.join(sdk, "src"))) return undefined;
            return { path: path.join(sdk, "lib", path.relative(path.join(sdk, "src"), file)).replace(/(\.tsx?)?$/, ".js") };
        });
        bundler.onResolve({ filter: /^(path|fs|util)$/ }, ({ path: name }) => ({ path: name, namespace: "absent" }));
        bundler.onLoad({ filter: /.*/, namespace: "absent" }, () => ({ contents: "exports.isArray = Array.isArray" }));
        // Voice messages: their code runs in an audio worklet, which a plain script is not.
        bundler.onResolve({ filter: /RecorderWorklet$|^opus-recorder/ }, ({ path: name }) => ({ path: name, namespace: "absent" }));
        bundler.onResolve({ filter: /^!!raw-loader!/ }, (request) => ({ path: request.path, namespace: "absent" }));
        bundler.onResolve({ filter: /\/res\/(img|fonts|media)\// }, (request) => {
            const inside = request.path.replace(/^.*?\/res\//, "").replace(/[?#].*$/, "");
            return { path: path.join(sdk, "res", inside) };
        });
    },
};

/** A drawing is an address (`default`) or a component (`Icon`), as with the loader that Element Web uses. */
const drawings = {
    name: "drawings",
    setup(bundler) {
        bundler.onLoad({ filter: /\.svg$/ }, async ({ path: file }) => {
            const address = JSON.stringify(`data:image/svg+xml,${encodeURIComponent(await readFile(file, "utf8"))}`);
            const icon = `(props) => require("react").createElement("img", { ...props, src: ${address} })`;
            return { contents: `module.exports = { __esModule: true, default: ${address}, Icon: ${icon} }`, resolveDir: here };
        });
    },
};

/** `import.meta.url` does not exist in a bundle that is a plain script. */
const workers = {
    name: "workers",
    setup(bundler) {
        bundler.onLoad({ filter: /WorkerFactory\.js$/ }, async ({ path: file }) => {
            const text = await readFile(file, "utf8");
            return { contents: text.replace(/new URL\("\.\/(\w+)\.worker\.ts", import\.meta\.url\)/, `"workers/$1.js"`) };
        });
    },
};

const shared = {
    bundle: true,
    format: "iife",
    target: "chrome120",
    minify: false,
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"', global: "globalThis", "process.env": "{}" },
    inject: [path.join(here, "globals.js")],
    loader: {
        ".png": "file", ".gif": "file", ".wasm": "file", ".mp3": "file", ".ogg": "file",
        ".woff": "file", ".woff2": "file", ".ttf": "file",
    },
    assetNames: "assets/[name]-[hash]",
    publicPath: "/",
    plugins: [resolutions, drawings, workers],
};

async function script() {
    await build({ ...shared, entryPoints: [path.join(here, "shell.jsx")], outfile: path.join(out, "bundle.js"), jsx: "transform" });
    const names = ["blurhash", "indexeddb", "playback"];
    const entryPoints = names.map((name) => ({ in: path.join(sdk, `lib/workers/${name}.worker.js`), out: name }));
    await build({ ...shared, entryPoints, outdir: path.join(out, "workers") });
}

async function style() {
    const plugin = (name, options) => require(name)(options);
    const source = path.join(sdk, "res/themes/light/css/light.pcss");
    const processed = await postcss([
        plugin("postcss-import"), plugin("postcss-mixins"), plugin("postcss-simple-vars"), plugin("postcss-nested"),
        plugin("postcss-easings"), plugin("postcss-hexrgba"),
    ]).process(await readFile(source, "utf8"), { from: source, syntax });
    await mkdir(out, { recursive: true });
    await writeFile(path.join(out, "theme.css"), processed.css);
}

async function translations() {
    await mkdir(path.join(out, "i18n"), { recursive: true });
    await cp(path.join(sdk, "src/i18n/strings/en_EN.json"), path.join(out, "i18n/en_EN.json"));
    await writeFile(path.join(out, "i18n/languages.json"), JSON.stringify({ en: "en_EN.json" }));
}

/** What is served as it is: the page, and what the style sheet points to. */
async function files() {
    await cp(path.join(sdk, "res"), out, { recursive: true, filter: (from) => !/\/(css|themes)$/.test(from) });
    const tokens = path.dirname(require.resolve("@vector-im/compound-design-tokens/package.json"));
    await cp(path.join(tokens, "icons"), path.join(out, "@vector-im/compound-design-tokens/icons"), { recursive: true });
    for (const file of ["index.html", "media_worker.js"]) await cp(path.join(here, file), path.join(out, file));
}

await mkdir(out, { recursive: true });
await Promise.all([script(), style(), translations(), files()]);
