import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** Publishes lines "key TAB value" from stdin, as any Java service would: the client's defaults, nothing of ours. */
public class Publish {
    public static void main(String[] arguments) throws Exception {
        Properties configuration = new Properties();
        configuration.put("bootstrap.servers", arguments[0]);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(configuration, new StringSerializer(), new StringSerializer())) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] event = line.split("\t", 2);
                producer.send(new ProducerRecord<>(arguments[1], event[0], event[1])).get();
            }
        }
    }
}
