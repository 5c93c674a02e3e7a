// Makes classes or types of the messages: node models.mjs java|typescript asyncapi.json FOLDER
// Needs @asyncapi/modelina; asyncapi.json is what `ecs-worker asyncapi -o json` prints.
import { readFileSync } from 'node:fs';
import { JAVA_JACKSON_PRESET, JavaFileGenerator, TypeScriptFileGenerator } from '@asyncapi/modelina';

const generators = {
  java: [
    new JavaFileGenerator({
      collectionType: 'List',
      presets: [JAVA_JACKSON_PRESET],
      // Times stay texts, as in JSON: no module of Jackson's is needed for them.
      typeMapping: { String: () => 'String' },
    }),
    { packageName: 'ecs.models' },
  ],
  typescript: [
    new TypeScriptFileGenerator({
      modelType: 'interface',
      enumType: 'union',
      mapType: 'indexedObject',
      moduleSystem: 'ESM',
      rawPropertyNames: true, // server_id and not serverId: the types of the JSON itself
    }),
    { exportType: 'named' },
  ],
};

const [language, document, folder] = process.argv.slice(2);
const [generator, options] = generators[language];
const schema = JSON.parse(readFileSync(document, 'utf8'));
await generator.generateToFiles(schema, folder, options);
