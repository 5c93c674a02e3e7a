// AsyncAPI's own tools on the document that stands on standard input's file: node - COMMAND DOCUMENT FOLDER < tools.mjs
import { readFileSync } from 'node:fs';

const [command, path, folder] = process.argv.slice(2);
const text = readFileSync(path, 'utf8');

// Prints the parser's diagnostics: severity 0 is an error, 1 a warning.
async function parse() {
  const { Parser } = await import('@asyncapi/parser');
  const { diagnostics } = await new Parser().parse(text);
  console.log(JSON.stringify(diagnostics.map(({ severity, code, message, path: at }) => ({ severity, code, message, at: at.join('/') }))));
}

// Writes index.html.
async function render() {
  const { default: Generator } = await import('@asyncapi/generator');
  const templateParams = { singleFile: true };
  await new Generator('@asyncapi/html-template', folder, { forceWrite: true, templateParams }).generateFromString(text);
}

// Writes a Java class of each model and prints their names.
async function classes() {
  const { JavaFileGenerator } = await import('@asyncapi/modelina');
  const generator = new JavaFileGenerator({ collectionType: 'List' });
  const models = await generator.generateToFiles(JSON.parse(text), folder, { packageName: 'ecs' });
  console.log(JSON.stringify(models.map((model) => model.modelName)));
}

await { parse, render, classes }[command]();
