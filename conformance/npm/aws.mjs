// Uses AWS with the SDK for JavaScript v3 as any program does, knowing nothing of Deputize: its credentials come from
// wherever the SDK's own chain finds them. Arguments: how often, a bucket, keys of objects. Prints who it is and, for
// each try, the object's text or the code of the refusal, as one JSON object.

import { GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";

const [times, bucket, ...keys] = process.argv.slice(2);
const s3 = new S3Client({ forcePathStyle: true, maxAttempts: 1 });
const sts = new STSClient({ maxAttempts: 1 });
const read = [];
for (let time = 0; time < Number(times); time += 1) {
    for (const Key of keys) {
        try {
            const answer = await s3.send(new GetObjectCommand({ Bucket: bucket, Key }));
            read.push(await answer.Body.transformToString());
        } catch (error) {
            read.push(error.name);
        }
    }
}
const { Arn } = await sts.send(new GetCallerIdentityCommand({}));
console.log(JSON.stringify({ arn: Arn, read }));
